//! Guesses change the time, never the tokens: whatever the family, the sampling, the placement, and however it ends.

mod common;

use common::{load, options, prompt};
use engine::{Cancel, Completion, Drafting, Engine, EngineError, Event, Finish, LoadOptions, Request, Speculation};
use sampler::Params;
use test_models::{ModelSpec, Vocabulary};

const PLENTY: u64 = 1 << 30;

fn always(max: u32) -> Speculation {
    Speculation { drafting: Drafting::Always, lookup: true, max }
}

fn speculating(options: LoadOptions, max: u32) -> LoadOptions {
    LoadOptions { speculation: always(max), ..options }
}

fn families() -> Vec<ModelSpec> {
    let small = [ModelSpec::llama3(), ModelSpec::qwen2(), ModelSpec::qwen3moe()];
    small.into_iter().map(|spec| ModelSpec { n_layer: 4, ..spec }).chain(ModelSpec::every_kind()).collect()
}

/// A text that repeats itself, so that there is something to guess.
fn repeating(len: usize) -> Vec<u32> {
    prompt(9).into_iter().cycle().take(len).collect()
}

/// Greedy, as chats sample, with penalties of all kinds, and so narrow that guesses hold now and then.
fn samplings() -> Vec<Params> {
    let base = Params { seed: 7, ..Params::default() };
    vec![
        Params { temperature: 0.0, ..base.clone() },
        base.clone(),
        Params { temperature: 0.0, repeat_penalty: 1.3, presence_penalty: 0.4, frequency_penalty: 0.3, ..base.clone() },
        Params { top_k: 3, repeat_penalty: 1.1, frequency_penalty: 0.2, repeat_last_n: 5, ..base.clone() },
        Params { temperature: 0.3, top_k: 0, top_p: 0.5, min_p: 0.2, logit_bias: vec![(20, 3.0), (21, -9.0)], ..base },
    ]
}

fn request(prompt: &[u32], count: u32, sampling: &Params) -> Request {
    Request { sampling: sampling.clone(), ..common::request(prompt, count) }
}

fn run(engine: &Engine, request: Request) -> (Completion, Vec<Event>) {
    let mut events = Vec::new();
    let completion = engine.generate(request, &Cancel::new(), &mut |event| events.push(event)).expect("an answer");
    (completion, events)
}

fn greedy(engine: &Engine, prompt: &[u32], count: u32) -> Completion {
    run(engine, common::request(prompt, count)).0
}

fn engine(spec: &ModelSpec, options: LoadOptions) -> Engine {
    load(spec, options, None).expect("a loaded model").0
}

/// How the two end must not differ in anything that is not time.
fn assert_same(with: &Completion, without: &Completion, what: &str) {
    assert_eq!(with.ids, without.ids, "{what}");
    let told = |c: &Completion| (c.finish, c.prompt_tokens, c.context_used);
    assert_eq!(told(with), told(without), "{what}");
    assert_eq!(without.drafts, engine::Drafts::default());
}

#[test]
fn looked_up_guesses_give_the_same_tokens_in_every_family_and_sampling() {
    let (mut proposed, mut accepted) = (0, 0);
    for spec in families() {
        let plain = engine(&spec, options(256, 0));
        let ahead = engine(&spec, speculating(options(256, 0), 6));
        let text = repeating(40);
        for (index, sampling) in samplings().iter().enumerate() {
            let (with, events) = run(&ahead, request(&text, 60, sampling));
            let (without, expected) = run(&plain, request(&text, 60, sampling));
            let what = format!("{} {index}", spec.arch);
            assert_same(&with, &without, &what);
            // One token at a time, the same pieces of text.
            let tokens = |events: &[Event]| -> Vec<Event> {
                events.iter().filter(|event| matches!(event, Event::Token { .. })).cloned().collect()
            };
            assert_eq!(tokens(&events), tokens(&expected), "{what}");
            // The next turn finds what it needs.
            let mut next = text.clone();
            next.extend(&with.ids);
            next.extend([5, 6, 7]);
            let [with, without] = [&ahead, &plain].map(|engine| run(engine, request(&next, 12, sampling)).0);
            assert_same(&with, &without, &what);
            proposed += with.drafts.proposed;
            accepted += with.drafts.accepted;
        }
    }
    assert!(accepted > 100 && proposed > accepted + 100, "{accepted} of {proposed}");
}

#[test]
fn the_guesses_of_a_draft_model_give_the_same_tokens_in_every_family_and_sampling() {
    for spec in families() {
        let plain = engine(&spec, options(256, 0));
        let vocabulary = |draft: ModelSpec| ModelSpec { vocabulary: spec.vocabulary, n_vocab: spec.n_vocab, ..draft };
        // Always right at temperature 0; and hardly ever.
        for (draft, right) in [(spec.clone(), true), (vocabulary(ModelSpec { seed: 5, ..ModelSpec::llama() }), false)] {
            let only_draft = Speculation { lookup: false, ..always(4) };
            let ahead = engine(&spec, LoadOptions { speculation: only_draft, ..options(256, 0) });
            ahead.set_draft(engine(&draft, options(256, 0))).unwrap();
            for (index, sampling) in samplings().iter().enumerate() {
                let with = run(&ahead, request(&prompt(30), 40, sampling)).0;
                let without = run(&plain, request(&prompt(30), 40, sampling)).0;
                assert_same(&with, &without, &format!("{} {index} {right}", spec.arch));
                let drafts = with.drafts;
                assert!(drafts.proposed > 20 && drafts.accepted <= drafts.proposed, "{drafts:?}");
                if right && index == 0 {
                    assert_eq!(drafts.accepted, drafts.proposed, "{}", spec.arch);
                    // The prompt gives one token, every step five.
                    assert_eq!(drafts.accepted, 31, "{}", spec.arch);
                } else if !right {
                    assert!(drafts.accepted < drafts.proposed / 2, "{drafts:?}");
                }
            }
        }
    }
}

#[test]
fn any_split_and_any_micro_batch_give_the_same_tokens() {
    let mut proposed = 0;
    for spec in families() {
        let expected = greedy(&engine(&spec, options(128, 0)), &repeating(40), 40).ids;
        for layers in 0..=5 {
            let (ahead, _) = load(&spec, speculating(options(128, layers), 5), Some(PLENTY)).unwrap();
            assert_eq!(greedy(&ahead, &repeating(40), 40).ids, expected, "{} with {layers} layers", spec.arch);
            assert_eq!(ahead.placement().accelerator_used(), ahead.placement().accelerator_planned());
        }
        for (ubatch, logits_rows, max) in [(1, 1, 8), (2, 4, 8), (3, 2, 2), (64, 16, 15)] {
            let options = LoadOptions { ubatch, logits_rows, ..options(128, 0) };
            let completion = greedy(&engine(&spec, speculating(options, max)), &repeating(40), 40);
            assert_eq!(completion.ids, expected, "{} {ubatch} {logits_rows} {max}", spec.arch);
            assert!(completion.drafts.proposed == 0 || ubatch > 1, "{}", spec.arch);
            proposed += completion.drafts.proposed;
        }
    }
    assert!(proposed > 200, "{proposed}");
}

/// Between two tokens, whether or not they were computed in the same step.
#[test]
fn layers_move_and_devices_fail_between_guesses() {
    for spec in families() {
        let expected = greedy(&engine(&spec, options(128, 0)), &repeating(40), 24).ids;
        for token in [1, 2, 5] {
            for what in ["lost", "full", "fails", "moves"] {
                let (ahead, control) = load(&spec, speculating(options(128, 4), 5), Some(PLENTY)).unwrap();
                let control = control.unwrap();
                let limit = ahead.layout().totals(2).accelerator(0).total();
                let mut made = 0;
                let ahead = &ahead;
                let completion = std::thread::scope(|scope| {
                    ahead.generate(common::request(&repeating(40), 24), &Cancel::new(), &mut |event| {
                        made += u32::from(matches!(event, Event::Token { .. }));
                        if made != token || !matches!(event, Event::Token { .. }) {
                            return;
                        }
                        match what {
                            "lost" => control.lose(),
                            "full" => control.set_limit(limit),
                            "fails" => control.fail_run(u64::from(token) * 7),
                            _ => {
                                scope.spawn(move || ahead.set_gpu_layers(token % 6).unwrap());
                                // The wish must be there before the next step looks for it.
                                std::thread::sleep(std::time::Duration::from_millis(10));
                            }
                        }
                    })
                });
                assert_eq!(completion.unwrap().ids, expected, "{} {what} {token}", spec.arch);
                assert_ne!((what, ahead.placement().gpu_layers), ("lost", 4));
            }
        }
    }
}

#[test]
fn cancel_the_end_of_the_context_and_limits_are_where_they_were() {
    for spec in families() {
        let text = repeating(30);
        let plain = engine(&spec, options(64, 0));
        let ahead = engine(&spec, speculating(options(64, 0), 7));
        for count in 0..12 {
            let [with, without] = [&ahead, &plain].map(|engine| greedy(engine, &text, count));
            assert_same(&with, &without, &format!("{} {count}", spec.arch));
        }
        // Until the context is full.
        let [with, without] =
            [&ahead, &plain].map(|engine| run(engine, Request { max_tokens: None, ..common::request(&text, 0) }).0);
        assert_eq!((with.finish, with.ids.len(), with.context_used), (Finish::ContextFull, 35, 64), "{}", spec.arch);
        assert_same(&with, &without, &spec.arch);
        for stop in 1..12 {
            let [with, without] = [&ahead, &plain].map(|engine| {
                let (cancel, mut made) = (Cancel::new(), 0);
                let completion = engine.generate(common::request(&text, 30), &cancel, &mut |event| {
                    made += u32::from(matches!(event, Event::Token { .. }));
                    if made == stop {
                        cancel.cancel();
                    }
                });
                completion.unwrap()
            });
            // A token that was ahead is in the context already when its step would have been cancelled.
            assert_eq!((with.finish, &with.ids), (Finish::Cancelled, &without.ids), "{} {stop}", spec.arch);
            let [with, without] = [&ahead, &plain].map(|engine| greedy(engine, &text, 9));
            assert_same(&with, &without, &format!("{} after {stop}", spec.arch));
        }
    }
}

/// The model's own end of a turn, guessed or not, ends the answer at the same token.
#[test]
fn an_end_that_was_guessed_ends_the_answer() {
    let spec = ModelSpec::llama();
    let [plain, ahead] = [options(256, 0), speculating(options(256, 0), 6)].map(|options| engine(&spec, options));
    let eog = plain.tokenizer().end_of_generation()[0];
    // It follows what the text has been repeating, and is likely enough to be drawn.
    let text: Vec<u32> = [20, 21, 22, eog].into_iter().cycle().take(43).collect();
    let mut ended = 0;
    for seed in 0..40 {
        let sampling = Params { seed, logit_bias: vec![(eog, 5.0)], ..Params::default() };
        let [with, without] = [&ahead, &plain]
            .map(|engine| run(engine, Request { ignore_eog: false, ..request(&text, 40, &sampling) }).0);
        assert_same(&with, &without, &format!("{seed}"));
        ended += u32::from(with.finish == Finish::EndOfGeneration);
    }
    assert!(ended > 20, "{ended}");
}

/// What may come depends on the tokens before: half of the vocabulary, by the sum of them.
struct BySum {
    mask: sampler::Mask,
    sum: u32,
    heard: Vec<u32>,
}

impl sampler::Constraint for BySum {
    fn mask(&mut self) -> Result<Option<&sampler::Mask>, sampler::ConstraintError> {
        for token in 0..self.mask.len() as u32 {
            self.mask.set(token, (token / 3 + self.sum) % 2 == 0);
        }
        Ok(Some(&self.mask))
    }

    fn accept(&mut self, token: u32) -> Result<(), sampler::ConstraintError> {
        self.sum += token;
        self.heard.push(token);
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.heard.len() == 50
    }
}

#[test]
fn guesses_go_through_a_constraint_one_by_one() {
    for spec in [ModelSpec::qwen3(), ModelSpec::qwen35()] {
        let [plain, ahead] = [options(128, 0), speculating(options(128, 0), 6)].map(|options| engine(&spec, options));
        ahead.set_draft(engine(&spec, options(128, 0))).unwrap();
        let mut accepted = 0;
        for sampling in &samplings() {
            let [with, without] = [&ahead, &plain].map(|engine| {
                let mask = sampler::Mask::none(engine.model().vocab_size);
                let mut constraint = BySum { mask, sum: 0, heard: Vec::new() };
                let request = request(&repeating(40), 60, sampling);
                let completion = engine.generate_within(Some(&mut constraint), request, &Cancel::new(), &mut |_| {});
                let completion = completion.unwrap();
                assert_eq!((completion.finish, &completion.ids), (Finish::EndOfGeneration, &constraint.heard));
                completion
            });
            assert_same(&with, &without, &spec.arch);
            accepted += with.drafts.accepted;
        }
        assert!(accepted > 20, "{accepted}");
    }
}

/// Rejected guesses overwrite cells of a ring; those that a window still needs must not be among them.
#[test]
fn windows_that_went_round_give_the_same_tokens() {
    for spec in [ModelSpec::gemma2(), ModelSpec::gemma4(), ModelSpec::gpt_oss()] {
        let text = repeating(1400);
        let [plain, ahead] =
            [options(2000, 0), speculating(options(2000, 0), 12)].map(|options| engine(&spec, options));
        assert!(ahead.layout().layers[0].cells < 1400);
        let mut rejected = 0;
        for sampling in &samplings() {
            let [with, without] = [&ahead, &plain].map(|engine| run(engine, request(&text, 40, sampling)).0);
            assert_same(&with, &without, &spec.arch);
            rejected += with.drafts.proposed - with.drafts.accepted;
        }
        assert!(rejected > 0, "{}", spec.arch);
    }
}

/// Where it pays depends on time; what is said does not.
#[test]
fn switching_itself_does_not_show() {
    for spec in families() {
        let plain = engine(&spec, options(512, 0));
        let speculation = Speculation { max: 6, ..Speculation::LOOKUP };
        let ahead = engine(&spec, LoadOptions { speculation, ..options(512, 0) });
        ahead.set_draft(engine(&spec, options(512, 0))).unwrap();
        for sampling in &samplings()[..2] {
            let [with, without] = [&ahead, &plain].map(|engine| run(engine, request(&repeating(40), 200, sampling)).0);
            assert_same(&with, &without, &spec.arch);
        }
    }
}

#[test]
fn the_distribution_is_the_models_own() {
    let spec = ModelSpec::qwen3();
    let only_draft = Speculation { lookup: false, ..always(2) };
    let ahead = engine(&spec, LoadOptions { speculation: only_draft, ..options(64, 0) });
    ahead.set_draft(engine(&spec, options(64, 0))).unwrap();
    let sampling = Params { temperature: 1.5, top_k: 3, top_p: 1.0, min_p: 0.0, ..Params::default() };
    // The likeliest three of each place and their shares, computed here.
    let shares = |text: &[u32]| -> Vec<(u32, f64)> {
        let mut logits = Vec::new();
        ahead.logits(text, engine::Positions::Last, &Cancel::new(), &mut |row| logits = row.to_vec()).unwrap();
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        order.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]));
        let weight = |id: &u32| (f64::from(logits[*id as usize]) / 1.5).exp();
        let sum: f64 = order[..3].iter().map(weight).sum();
        order[..3].iter().map(|id| (*id, weight(id) / sum)).collect()
    };
    let text = prompt(20);
    let mut expected = std::collections::BTreeMap::new();
    for (first, share) in shares(&text) {
        for (second, of_those) in shares(&[&text[..], &[first]].concat()) {
            for (third, rest) in shares(&[&text[..], &[first, second]].concat()) {
                expected.insert([first, second, third], (share * of_those * rest, 0));
            }
        }
    }
    assert_eq!(expected.len(), 27);
    const RUNS: u64 = 3000;
    let (mut proposed, mut accepted) = (0, 0);
    for seed in 0..RUNS {
        let completion = run(&ahead, request(&text, 3, &Params { seed, ..sampling.clone() })).0;
        let key = [completion.ids[0], completion.ids[1], completion.ids[2]];
        expected.get_mut(&key).expect("one of the three likeliest at each place").1 += 1;
        proposed += completion.drafts.proposed;
        accepted += completion.drafts.accepted;
    }
    assert!(accepted > proposed / 10 && accepted < proposed * 9 / 10, "{accepted} of {proposed}");
    // Chi square with 26 degrees of freedom: 54.1 is passed by 99.9 % of all seeds.
    let chi: f64 = expected
        .values()
        .map(|(share, found)| (f64::from(*found) - share * RUNS as f64).powi(2) / (share * RUNS as f64))
        .sum();
    assert!(chi < 54.1, "{chi}");
}

#[test]
fn a_draft_model_of_another_vocabulary_is_refused_with_the_reason() {
    let target = engine(&ModelSpec::qwen2(), options(64, 0));
    let other = ModelSpec { vocabulary: Vocabulary::Spm, ..ModelSpec::qwen2() };
    let error = target.set_draft(engine(&other, options(64, 0))).unwrap_err();
    let EngineError::DraftVocabulary { detail } = &error else { panic!("{error}") };
    assert!(detail.starts_with("token ") && error.to_string().contains("another vocabulary"), "{error}");
}

#[test]
fn a_draft_model_that_ends_early_or_fails_is_done_without() {
    let spec = ModelSpec::llama3();
    let plain = engine(&spec, options(128, 0));
    let expected = greedy(&plain, &prompt(40), 60);
    let only_draft = Speculation { lookup: false, ..always(4) };
    let with_draft = |draft: LoadOptions, limit: Option<u64>| {
        let target = engine(&spec, LoadOptions { speculation: only_draft, ..options(128, 0) });
        let (draft, control) = load(&spec, draft, limit).unwrap();
        target.set_draft(draft).unwrap();
        (target, control)
    };
    // Its context is full before that of the model.
    let (short, _) = with_draft(options(64, 0), None);
    assert_eq!(plain.draft_placement(), None);
    let completion = greedy(&short, &prompt(40), 60);
    assert_same(&completion, &expected, "short");
    assert!((12..24).contains(&completion.drafts.accepted), "{:?}", completion.drafts);
    // Its device is lost, or full: it goes on on the host.
    for lost in [true, false] {
        let (target, control) = with_draft(options(128, 3), Some(PLENTY));
        let control = control.unwrap();
        let mut made = 0;
        let completion = target.generate(common::request(&prompt(40), 60), &Cancel::new(), &mut |event| {
            made += u32::from(matches!(event, Event::Token { .. }));
            match (made, lost) {
                (10, true) => control.lose(),
                (10, false) => control.set_limit(1000),
                _ => {}
            }
            assert!(!matches!(event, Event::Recovered(_)), "the model's layers have not moved");
        });
        let completion = completion.unwrap();
        assert_same(&completion, &expected, "its device");
        assert!(completion.drafts.accepted > 40, "{:?}", completion.drafts);
        assert_eq!(target.draft_placement().unwrap().gpu_layers, 0);
    }
}
