//! What must hold of every kind of layer, and does not follow from attention over all positions: states that cannot go
//! back, windows whose cells are overwritten, caches that other layers read.

mod common;

use common::{greedy, load, options, prompt, request};
use engine::{Cancel, Engine, Event, Finish, LoadOptions, Positions};
use quant::GgmlType;
use test_models::ModelSpec;

fn exact(context: u32, ubatch: u32) -> LoadOptions {
    LoadOptions { ubatch, kv_type_k: GgmlType::F32, kv_type_v: GgmlType::F32, ..options(context, 0) }
}

fn logits(engine: &Engine, prompt: &[u32]) -> Vec<f32> {
    let mut rows: Vec<f32> = Vec::new();
    engine.logits(prompt, Positions::All, &Cancel::new(), &mut |row| rows.extend(row)).expect("logits");
    rows
}

#[test]
fn the_micro_batch_does_not_change_logits() {
    for spec in ModelSpec::every_kind() {
        let of = |ubatch| logits(&load(&spec, exact(64, ubatch), None).unwrap().0, &prompt(50));
        let whole = of(64);
        assert!(whole.iter().all(|value| value.is_finite()), "{}", spec.arch);
        for ubatch in [1, 3, 16] {
            assert!(of(ubatch) == whole, "{} in pieces of {ubatch}", spec.arch);
        }
    }
}

#[test]
fn a_window_that_went_round_gives_the_same_logits() {
    // The window's ring has 24 + 16 + 1024 cells here, and there all positions.
    for spec in [ModelSpec::gemma2(), ModelSpec::gemma4(), ModelSpec::gpt_oss()] {
        let (ring, _) = load(&spec, exact(2000, 16), None).unwrap();
        let (whole, _) = load(&spec, exact(1400, 1400), None).unwrap();
        assert!(ring.layout().layers[0].cells < 1400 && whole.layout().layers[0].cells == 1400);
        assert!(logits(&ring, &prompt(1400)) == logits(&whole, &prompt(1400)), "{}", spec.arch);
    }
}

#[test]
fn a_chat_that_goes_on_or_back_is_answered_as_if_it_were_new() {
    for spec in ModelSpec::every_kind() {
        let (engine, _) = load(&spec, options(256, 0), None).unwrap();
        let fresh = |text: &[u32]| greedy(&load(&spec, options(256, 0), None).unwrap().0, text, 8).0.ids;
        let first = greedy(&engine, &prompt(40), 8).0;
        let mut next = prompt(40);
        next.extend(&first.ids);
        next.extend([5, 6, 7]);
        let second = greedy(&engine, &next, 8).0;
        assert_eq!(second.reused_tokens, 48, "{}", spec.arch);
        assert_eq!(second.ids, fresh(&next), "{}", spec.arch);
        // The same again: all but the last token is there.
        let again = greedy(&engine, &next, 8).0;
        assert_eq!((again.reused_tokens, &again.ids), (50, &second.ids), "{}", spec.arch);
        // An edited last message, then one before it. States go back to where the last message began, or to nothing.
        let recurrent = engine.layout().is_recurrent();
        for (changed, state_kept) in [(49, 48), (44, 0)] {
            next[changed] = 299;
            let edited = greedy(&engine, &next, 8).0;
            assert_eq!(edited.reused_tokens, if recurrent { state_kept } else { changed as u32 }, "{}", spec.arch);
            assert_eq!(edited.ids, fresh(&next), "{}", spec.arch);
        }
        let edited = greedy(&engine, &next, 8).0;
        // A cancelled answer leaves what its whole steps left.
        let cancel = Cancel::new();
        let mut tokens = 0;
        let cut = engine.generate(request(&next, 8), &cancel, &mut |_| {
            tokens += 1;
            if tokens == 5 {
                cancel.cancel();
            }
        });
        assert_eq!(cut.unwrap().finish, Finish::Cancelled);
        assert_eq!(greedy(&engine, &next, 8).0.ids, edited.ids, "{}", spec.arch);
    }
}

#[test]
fn what_a_window_forgot_is_computed_again() {
    let spec = ModelSpec { n_layer: 2, ..ModelSpec::gemma2() };
    let (engine, _) = load(&spec, options(4000, 0), None).unwrap();
    let long = prompt(1300);
    greedy(&engine, &long, 1);
    let (mut near, mut far) = (long.clone(), long);
    near[800] = 299;
    far[100] = 299;
    for (text, kept) in [(near, 800), (far, 0)] {
        let (fresh, _) = load(&spec, options(4000, 0), None).unwrap();
        let completion = greedy(&engine, &text, 4).0;
        assert_eq!(completion.reused_tokens, kept);
        assert_eq!(completion.ids, greedy(&fresh, &text, 4).0.ids);
    }
}

/// Going back twice by a little is going back by much: the cells that were written in between are no window's any more.
#[test]
fn what_a_window_forgot_is_computed_again_however_it_was_forgotten() {
    let spec = ModelSpec { n_layer: 2, ..ModelSpec::gemma2() };
    let (engine, _) = load(&spec, options(4000, 0), None).unwrap();
    let mut text = prompt(2600);
    greedy(&engine, &text, 1);
    for (end, kept) in [(1800, 1799), (1000, 0)] {
        text.truncate(end);
        let (fresh, _) = load(&spec, options(4000, 0), None).unwrap();
        let completion = greedy(&engine, &text, 4).0;
        assert_eq!(completion.ids, greedy(&fresh, &text, 4).0.ids, "{end}");
        assert_eq!(completion.reused_tokens, kept, "{end}");
    }
}

/// A step that failed halfway has written states of some layers: the same step again must not start from those.
#[test]
fn a_step_that_failed_anywhere_is_repeated_from_where_it_began() {
    for spec in [ModelSpec::qwen35(), ModelSpec::lfm2(), ModelSpec::granite_hybrid(), ModelSpec::gemma4()] {
        let (engine, _) = load(&spec, options(128, 3), Some(1 << 30)).unwrap();
        let expected = greedy(&engine, &prompt(40), 12).0.ids;
        for operation in (0..60).step_by(6) {
            let (engine, control) = load(&spec, options(128, 3), Some(1 << 30)).unwrap();
            let control = control.unwrap();
            let mut tokens = 0;
            let completion = engine.generate(request(&prompt(40), 12), &Cancel::new(), &mut |event| {
                if matches!(event, Event::Token { .. }) {
                    tokens += 1;
                    if tokens == 4 {
                        control.fail_run(operation);
                    }
                }
            });
            assert_eq!(completion.unwrap().ids, expected, "{} after {operation} operations", spec.arch);
            assert!(engine.placement().gpu_layers < 3, "the failure was injected");
        }
    }
}
