//! What is prescribed for an answer holds for every token, with every sampler setting.

mod common;

use common::{load, options, prompt, request};
use engine::{Cancel, EngineError, Event, Finish, Request};
use sampler::{Constraint, ConstraintError, Mask};
use test_models::ModelSpec;

/// Allows one set of tokens after the other, and says what it was told.
struct Steps {
    allowed: Vec<Vec<u32>>,
    vocabulary: usize,
    heard: Vec<u32>,
    mask: Option<Mask>,
    /// Before this many tokens, anything may come.
    free: usize,
}

impl Steps {
    fn new(vocabulary: usize, allowed: Vec<Vec<u32>>) -> Steps {
        Steps { allowed, vocabulary, heard: Vec::new(), mask: None, free: 0 }
    }
}

impl Constraint for Steps {
    fn mask(&mut self) -> Result<Option<&Mask>, ConstraintError> {
        if self.heard.len() < self.free {
            return Ok(None);
        }
        let mut mask = Mask::none(self.vocabulary);
        let allowed = self.allowed.get(self.heard.len() - self.free).ok_or(ConstraintError::Stuck)?;
        allowed.iter().for_each(|token| mask.set(*token, true));
        Ok(Some(self.mask.insert(mask)))
    }

    fn accept(&mut self, token: u32) -> Result<(), ConstraintError> {
        self.heard.push(token);
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.heard.len() == self.allowed.len() + self.free
    }
}

fn samplings() -> Vec<sampler::Params> {
    let base = sampler::Params::default();
    vec![
        sampler::Params { temperature: 0.0, ..base.clone() },
        sampler::Params { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 7, ..base.clone() },
        sampler::Params { temperature: 2.0, top_k: 1, ..base.clone() },
        sampler::Params { repeat_penalty: 5.0, frequency_penalty: 3.0, presence_penalty: 3.0, seed: 9, ..base.clone() },
        // The bias is for tokens that may not come.
        sampler::Params { logit_bias: (0..50).map(|token| (token, 100.0)).collect(), ..base },
    ]
}

#[test]
fn every_sampler_setting_stays_within_the_constraint() {
    let (engine, _) = load(&ModelSpec::qwen3(), options(64, 0), None).unwrap();
    let vocabulary = engine.tokenizer().vocab_size();
    let allowed: Vec<Vec<u32>> = (0..12).map(|step| (0..3).map(|i| 60 + step * 7 + i * 11).collect()).collect();
    for sampling in samplings() {
        let mut steps = Steps::new(vocabulary, allowed.clone());
        let request = Request { sampling: sampling.clone(), ..request(&prompt(9), 40) };
        let mut told = Vec::new();
        let mut on_event = |event| {
            if let Event::Token { id, .. } = event {
                told.push(id);
            }
        };
        let done = engine.generate_within(Some(&mut steps), request, &Cancel::new(), &mut on_event).unwrap();
        assert_eq!(done.finish, Finish::EndOfGeneration, "the constraint is complete");
        assert_eq!(done.ids.len(), allowed.len());
        assert!(
            done.ids.iter().zip(&allowed).all(|(id, allowed)| allowed.contains(id)),
            "{sampling:?}: {:?}",
            done.ids
        );
        assert_eq!((&told, &steps.heard), (&done.ids, &done.ids));
    }
}

#[test]
fn the_end_comes_only_where_it_is_allowed() {
    let (engine, _) = load(&ModelSpec::qwen3(), options(64, 0), None).unwrap();
    let end = engine.tokenizer().end_of_generation()[0];
    let vocabulary = engine.tokenizer().vocab_size();
    // The model wants nothing but the end.
    let sampling = sampler::Params { logit_bias: vec![(end, 100.0)], temperature: 0.0, ..Default::default() };
    let mut steps = Steps::new(vocabulary, vec![vec![70], vec![71, 72], vec![end, 73], vec![74]]);
    let request = Request { sampling: sampling.clone(), ignore_eog: false, ..request(&prompt(5), 40) };
    let done = engine.generate_within(Some(&mut steps), request.clone(), &Cancel::new(), &mut |_| {}).unwrap();
    assert_eq!((done.finish, done.ids.len()), (Finish::EndOfGeneration, 2));
    // Without the constraint there is no answer at all.
    assert_eq!(engine.generate(request, &Cancel::new(), &mut |_| {}).unwrap().ids, [0u32; 0]);
}

#[test]
fn a_constraint_may_begin_later() {
    let (engine, _) = load(&ModelSpec::qwen3(), options(64, 0), None).unwrap();
    let vocabulary = engine.tokenizer().vocab_size();
    let free = engine.generate(request(&prompt(5), 4), &Cancel::new(), &mut |_| {}).unwrap().ids;
    let mut steps = Steps { free: 4, ..Steps::new(vocabulary, vec![vec![80], vec![81]]) };
    let done = engine.generate_within(Some(&mut steps), request(&prompt(5), 40), &Cancel::new(), &mut |_| {}).unwrap();
    assert_eq!(done.ids, [free, vec![80, 81]].concat());
}

#[test]
fn what_cannot_go_on_is_an_error_and_the_engine_goes_on() {
    let (engine, _) = load(&ModelSpec::qwen3(), options(64, 0), None).unwrap();
    let vocabulary = engine.tokenizer().vocab_size();
    // No token at all, and tokens that the model does not have.
    for last in [vec![], vec![vocabulary as u32 + 5]] {
        let mut steps = Steps::new(vocabulary, vec![vec![70], last, vec![71]]);
        let mut tokens = 0;
        let mut on_event = |event| tokens += u32::from(matches!(event, Event::Token { .. }));
        let result = engine.generate_within(Some(&mut steps), request(&prompt(5), 9), &Cancel::new(), &mut on_event);
        assert!(matches!(result, Err(EngineError::Constraint(ConstraintError::Stuck))), "{result:?}");
        assert_eq!(tokens, 1, "what there was is told");
    }
    assert_eq!(engine.generate(request(&prompt(5), 3), &Cancel::new(), &mut |_| {}).unwrap().ids.len(), 3);
}

#[test]
fn a_cancelled_answer_ends_within_its_constraint() {
    let (engine, _) = load(&ModelSpec::qwen3(), options(64, 0), None).unwrap();
    let mut steps = Steps::new(engine.tokenizer().vocab_size(), vec![vec![70, 71]; 40]);
    let cancel = Cancel::new();
    let mut on_event = |event| {
        if let Event::Token { .. } = event {
            cancel.cancel();
        }
    };
    let done = engine.generate_within(Some(&mut steps), request(&prompt(5), 40), &cancel, &mut on_event).unwrap();
    assert_eq!((done.finish, done.ids.len()), (Finish::Cancelled, 1));
}

/// Takes long for each mask, and notes on which thread.
struct Slow {
    steps: Steps,
    threads: Vec<std::thread::ThreadId>,
}

impl Constraint for Slow {
    fn mask(&mut self) -> Result<Option<&Mask>, ConstraintError> {
        if self.threads.len() == self.steps.heard.len() {
            self.threads.push(std::thread::current().id());
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        self.steps.mask()
    }

    fn accept(&mut self, token: u32) -> Result<(), ConstraintError> {
        self.steps.accept(token)
    }

    fn is_complete(&self) -> bool {
        self.steps.is_complete()
    }
}

#[test]
fn masks_that_take_long_are_found_while_the_model_computes() {
    let (engine, _) = load(&ModelSpec::qwen3(), options(64, 0), None).unwrap();
    let vocabulary = engine.tokenizer().vocab_size();
    let allowed: Vec<Vec<u32>> = (0..12).map(|step| (0..3).map(|i| 60 + step * 7 + i * 11).collect()).collect();
    let run = |allowed: &[Vec<u32>]| {
        let mut quick = Steps::new(vocabulary, allowed.to_vec());
        let mut slow = Slow { steps: Steps::new(vocabulary, allowed.to_vec()), threads: Vec::new() };
        let constraints: [&mut dyn Constraint; 2] = [&mut quick, &mut slow];
        let results = constraints.map(|constraint| {
            let sampling = sampler::Params { temperature: 1.0, seed: 7, ..Default::default() };
            let request = Request { sampling, ..request(&prompt(9), 40) };
            engine.generate_within(Some(constraint), request, &Cancel::new(), &mut |_| {}).map(|done| done.ids)
        });
        assert_eq!(quick.heard, slow.steps.heard);
        let here = std::thread::current().id();
        assert_eq!(slow.threads[0], here, "nothing is known of it yet");
        assert!(slow.threads.len() > 2 && slow.threads[1..].iter().all(|thread| *thread != here));
        results
    };
    let [quick, slow] = run(&allowed);
    assert_eq!(quick.unwrap(), slow.unwrap());
    // What the helper finds out is told as ever.
    let stuck = [&allowed[..5], &[vec![]]].concat();
    for result in run(&stuck) {
        assert!(matches!(result, Err(EngineError::Constraint(ConstraintError::Stuck))), "{result:?}");
    }
}
