//! What is asked for and given up, in which order, with a recorder in the place of the system.

use super::*;
use model::{Layout, LayoutParams, Placement};
use quant::GgmlType;
use std::sync::{Arc, Mutex};
use test_models::ModelSpec;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Said {
    Fetch(usize),
    Guess(usize),
    Confirm(usize),
    Evict(usize),
    Wait(usize),
}

/// Writes down what it is told, by the address of the bytes; tickets are addresses, too. Guesses wait for ever.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<Said>>>, Arc<Mutex<Vec<WeightBytes>>>);

impl Advice for Recorder {
    fn fetch(&mut self, bytes: WeightBytes) -> Ticket {
        self.0.lock().unwrap().push(Said::Fetch(bytes.as_ptr() as usize));
        Ticket::from(bytes.as_ptr() as u64)
    }

    fn guess(&mut self, bytes: WeightBytes) {
        let mut said = self.0.lock().unwrap();
        said.push(Said::Guess(bytes.as_ptr() as usize));
        self.1.lock().unwrap().push(bytes);
    }

    fn confirm(&mut self, bytes: &WeightBytes) -> Ticket {
        self.0.lock().unwrap().push(Said::Confirm(bytes.as_ptr() as usize));
        self.1.lock().unwrap().retain(|waiting| waiting.as_ptr() != bytes.as_ptr());
        Ticket::default()
    }

    fn call_off(&mut self) -> Vec<WeightBytes> {
        std::mem::take(&mut self.1.lock().unwrap())
    }

    fn evict(&mut self, bytes: WeightBytes) {
        self.0.lock().unwrap().push(Said::Evict(bytes.as_ptr() as usize));
    }

    fn wait(&mut self, ticket: Ticket) {
        self.0.lock().unwrap().push(Said::Wait(u64::from(ticket) as usize));
    }
}

impl Recorder {
    fn take(&self) -> Vec<Said> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// A model with RAM for this share of its weights.
fn paging(spec: &ModelSpec, percent: u64) -> (Paging, Recorder, Model) {
    let path = tempfile::NamedTempFile::with_suffix(".gguf").unwrap().into_temp_path();
    std::fs::write(&path, spec.build()).unwrap();
    let file = Weights::new(weights::ModelFile::open(&path, weights::Access::Map).unwrap());
    let model = model::describe(file.gguf()).unwrap();
    let (kv_type_k, kv_type_v) = (GgmlType::F16, GgmlType::F16);
    let params = LayoutParams { context: 64, ubatch: 8, kv_type_k, kv_type_v, logits_rows: 1 };
    let layout = Layout::new(&model, params).unwrap();
    let host = layout.totals(0).host;
    let ram = host.kv + host.compute + host.weights / 100 * percent;
    let residency = Residency::new(&model, &layout, &Placement::new(0, layout.block_count()), ram).unwrap();
    let recorder = Recorder::default();
    let paging = Paging::new(file, Box::new(recorder.clone()), None, residency, &model).unwrap();
    (paging, recorder, model)
}

#[test]
fn what_comes_next_is_asked_for_before_what_was_used_is_needed_again() {
    let spec = ModelSpec { n_layer: 8, ..ModelSpec::quantized(GgmlType::Q4_K) };
    let (mut paging, recorder, _) = paging(&spec, 60);
    recorder.take();
    let address = |paging: &Paging, tensor: &Tensor| paging.file.raw(tensor).unwrap().as_ptr() as usize;
    let layers = paging.residency.layers.clone();
    let mut held: HashSet<usize> = HashSet::new();
    let mut fetched = Vec::new();
    for step in 0..3 {
        for index in 0..layers.len() {
            paging.begin(index).unwrap();
            let own: Vec<usize> = layers[index].iter().map(|piece| address(&paging, &piece.tensor)).collect();
            for said in recorder.take() {
                match said {
                    Said::Fetch(at) => {
                        assert!(held.insert(at), "nothing is asked for twice");
                        fetched.push((step, at));
                    }
                    Said::Evict(at) => {
                        assert!(held.remove(&at), "only what is there is given up");
                        assert!(!own.contains(&at), "what is used now stays");
                    }
                    Said::Wait(at) => assert!(own.contains(&at), "only what is used now is waited for"),
                    Said::Guess(_) | Said::Confirm(_) => panic!("there are no experts"),
                }
            }
            assert!(own.iter().all(|at| held.contains(at)), "layer {index} is there or on its way");
            let told = paging.told();
            assert!(told.held <= told.budget, "{told:?}");
            // Something of what follows, too.
            let ahead = held.iter().filter(|at| !own.contains(at));
            assert!(ahead.count() > 0, "layer {index} of step {step}");
        }
    }
    // What stays is read once, everything else in the order of use, once a step.
    let in_order = |kept: bool| -> Vec<usize> {
        let pieces = layers.iter().flatten().filter(|piece| piece.kept == kept);
        pieces.map(|piece| address(&paging, &piece.tensor)).collect()
    };
    let (kept, streamed) = (in_order(true), in_order(false));
    assert!(!kept.is_empty() && !streamed.is_empty());
    let of =
        |set: &[usize]| -> Vec<usize> { fetched.iter().map(|(_, at)| *at).filter(|at| set.contains(at)).collect() };
    assert_eq!(of(&kept), kept);
    let rounds = of(&streamed);
    assert!(rounds.len() >= 3 * streamed.len() && rounds.len() < 4 * streamed.len());
    for (n, at) in rounds.iter().enumerate() {
        assert_eq!(*at, streamed[n % streamed.len()]);
    }
}

#[test]
fn a_step_that_was_cancelled_leaves_nothing_behind() {
    let spec = ModelSpec { n_layer: 8, ..ModelSpec::quantized(GgmlType::Q4_K) };
    let (mut paging, ..) = paging(&spec, 50);
    for index in [0, 1, 2, 3, 0, 5, 0, 1, 8, 4, 0] {
        paging.begin(index).unwrap();
        let told = paging.told();
        assert!(told.held <= told.budget, "{index}: {told:?}");
    }
}

#[test]
fn chosen_experts_are_asked_for_stack_by_stack_and_only_once() {
    let spec = ModelSpec { n_layer: 4, ..ModelSpec::qwen3moe() };
    let (mut paging, recorder, model) = paging(&spec, 70);
    let stacks = model.layers[0].experts().unwrap().stacks();
    paging.begin(0).unwrap();
    recorder.take();
    let place = |paging: &Paging, stack: &Tensor, expert: usize| {
        paging.experts.bytes(&paging.file, (stack.index, expert)).unwrap().as_ptr() as usize
    };
    let tickets = paging.choose(&stacks, &[2, 0, 2]).unwrap();
    assert_eq!(tickets.len(), stacks.len());
    let expected: Vec<Said> =
        stacks.iter().flat_map(|stack| [0, 2].map(|expert| Said::Fetch(place(&paging, stack, expert)))).collect();
    assert_eq!(recorder.take(), expected);
    paging.choose(&stacks, &[0]).unwrap();
    assert_eq!(recorder.take(), [], "they are there");
    assert!(paging.choose(&stacks, &[1_000_000]).is_err());
}

#[test]
fn experts_beyond_the_budget_go_when_others_come() {
    let spec = ModelSpec { n_layer: 4, ..ModelSpec::qwen3moe() };
    let (mut paging, recorder, model) = paging(&spec, 60);
    recorder.take();
    let mut gone = 0;
    for round in 0..6u32 {
        for layer in &model.layers {
            let stacks = layer.experts().unwrap().stacks();
            paging.choose(&stacks, &[round % 4, (round + 1) % 4]).unwrap();
            gone += recorder.take().iter().filter(|said| matches!(said, Said::Evict(_))).count();
            assert!(paging.experts.held() <= paging.residency.experts, "{:?}", paging.told());
        }
    }
    assert!(gone > 0);
}

/// The addresses of the experts' parts, stack by stack.
fn places(paging: &Paging, stacks: &[Tensor], experts: &[usize]) -> Vec<usize> {
    let at = |stack: &Tensor, expert| paging.experts.bytes(&paging.file, (stack.index, expert)).unwrap();
    stacks.iter().flat_map(|stack| experts.iter().map(move |e| at(stack, *e).as_ptr() as usize)).collect()
}

fn guesses(said: &[Said]) -> Vec<usize> {
    said.iter().filter_map(|said| if let Said::Guess(at) = said { Some(*at) } else { None }).collect()
}

#[test]
fn what_was_guessed_is_confirmed_when_it_is_chosen_and_read_when_it_was_called_off() {
    let spec = ModelSpec { n_layer: 4, ..ModelSpec::qwen3moe() };
    let (mut paging, recorder, model) = paging(&spec, 80);
    let stacks: Vec<Vec<Tensor>> = model.layers.iter().map(|layer| layer.experts().unwrap().stacks()).collect();
    paging.choose(&stacks[0], &[0, 1]).unwrap();
    recorder.take();
    paging.guess(&stacks[1], [2, 3].into_iter(), Guess::AsRouted).unwrap();
    let mut expected = places(&paging, &stacks[1], &[2, 3]);
    let mut said = guesses(&recorder.take());
    said.sort_unstable();
    expected.sort_unstable();
    assert_eq!(said, expected);
    let read = paging.told().read;
    paging.choose(&stacks[1], &[1, 2]).unwrap();
    let said = recorder.take();
    let (right, other) = (places(&paging, &stacks[1], &[2]), places(&paging, &stacks[1], &[1]));
    let of = |what: fn(usize) -> Said, at: &[usize]| at.iter().all(|at| said.contains(&what(*at)));
    assert!(of(Said::Confirm, &right) && of(Said::Fetch, &other), "{said:?}");
    assert_eq!(said.len(), right.len() + other.len());
    let told = paging.told();
    assert_eq!((told.guessed, told.guessed_right), (2, 1));
    assert_eq!(told.read, read, "one was read in the place of one that was called off");
    // That one is not there.
    paging.choose(&stacks[1], &[3]).unwrap();
    let missing: Vec<Said> = places(&paging, &stacks[1], &[3]).into_iter().map(Said::Fetch).collect();
    assert_eq!(recorder.take(), missing);
}

#[test]
fn guesses_leave_what_is_in_use_and_stop_where_there_is_no_room() {
    let spec = ModelSpec { n_layer: 4, ..ModelSpec::qwen3moe() };
    let (mut paging, recorder, model) = paging(&spec, 25);
    let stacks: Vec<Vec<Tensor>> = model.layers.iter().map(|layer| layer.experts().unwrap().stacks()).collect();
    for round in 0..8 {
        let (now, next) = (&stacks[round % 4], &stacks[(round + 1) % 4]);
        paging.choose(now, &[0, 1, 2, 3]).unwrap();
        let used = places(&paging, now, &[0, 1, 2, 3]);
        recorder.take();
        paging.guess(next, 0..4, Guess::All).unwrap();
        for said in recorder.take() {
            assert!(!matches!(said, Said::Evict(at) if used.contains(&at)), "{said:?}");
        }
        assert!(paging.experts.held() <= paging.residency.experts, "{:?}", paging.told());
    }
}

#[test]
fn guesses_that_are_mostly_wrong_are_only_compared_and_read_again_when_they_are_right() {
    let spec = ModelSpec { n_layer: 4, ..ModelSpec::qwen3moe() };
    let (mut paging, recorder, model) = paging(&spec, 60);
    let stacks: Vec<Vec<Tensor>> = model.layers.iter().map(|layer| layer.experts().unwrap().stacks()).collect();
    let mut round = |n: usize, right: bool| {
        let chosen = [n as u32 % 4];
        recorder.take();
        let guess = if right { n % 4 } else { (n + 1) % 4 };
        paging.guess(&stacks[n % 4], [guess].into_iter(), Guess::AsRouted).unwrap();
        let guessed = guesses(&recorder.take()).len();
        paging.choose(&stacks[n % 4], &chosen).unwrap();
        // Nothing stays: each time is the first.
        let others: Vec<u32> = (0..4).collect();
        stacks.iter().for_each(|stacks| drop(paging.choose(stacks, &others).unwrap()));
        guessed
    };
    let wrong: Vec<usize> = (0..200).map(|n| round(n, false)).collect();
    assert!(wrong[..20].iter().sum::<usize>() > 0 && wrong[100..].iter().sum::<usize>() == 0, "{wrong:?}");
    let right: Vec<usize> = (0..400).map(|n| round(n, true)).collect();
    assert!(right[300..].iter().sum::<usize>() > 0, "{right:?}");
}

#[test]
fn a_batch_that_uses_all_experts_leaves_what_was_there() {
    let spec = ModelSpec { n_layer: 12, ..ModelSpec::qwen3moe() };
    let (mut paging, recorder, model) = paging(&spec, 70);
    let layers: Vec<_> = model.layers.iter().map(|layer| *layer.experts().unwrap()).collect();
    let count = layers[0].router.experts;
    let ids: Vec<u32> = (0..4 * count as u32).map(|n| n % count as u32).collect();
    let mut reads = Vec::new();
    for _ in 0..5 {
        let before = paging.told().read;
        for (n, layer) in layers.iter().enumerate() {
            paging.choose(&layer.stacks(), &ids).unwrap();
            if let Some(next) = layers.get(n + 1) {
                assert_eq!(paging.how_to_guess(next.router, 4 * count), Guess::All);
                paging.guess(&next.stacks(), 0..count, Guess::All).unwrap();
            }
            assert!(paging.experts.held() <= paging.residency.experts);
        }
        reads.push(paging.told().read - before);
        recorder.take();
    }
    // What was used last would keep nothing of use.
    let (all, kept) = (paging.residency.all_experts, paging.residency.experts);
    let of = |layer: &model::Experts| layer.stacks().iter().map(|stack| stack.bytes).sum::<u64>();
    // All but what two layers need, and a part of a stack.
    let passing = layers.iter().map(of).max().unwrap() * 5 / 2;
    assert!(kept > 2 * passing, "the test says something: {kept} of {all}");
    assert!(reads[4] <= all - (kept - passing), "{reads:?}: {kept} of {all}");
}
