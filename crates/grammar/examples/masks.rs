//! How long masks take over a model's whole vocabulary: `cargo run --release -p grammar --example masks -- VOCABULARY.gguf`.
//!
//! Any GGUF with a vocabulary does. Answers are drawn at random from what is allowed, which wanders through more states
//! than a model does.

use grammar::{Form, Vocabulary};
use sampler::{Constraint, Params, Sampler};
use std::error::Error;
use std::time::{Duration, Instant};
use tokenizer::Tokenizer;

const PERSON: &str = r#"{"type":"object","properties":{"name":{"type":"string","maxLength":40},"age":{"type":"integer",
    "minimum":0,"maximum":150},"mail":{"type":"string","pattern":"^[a-z.]{1,20}@[a-z]{1,20}[.][a-z]{2,3}$"},
    "tags":{"type":"array","items":{"enum":["red","green","blue"]},"maxItems":5},"next":{"$ref":"\#"}},
    "required":["name","age","mail","tags"],"additionalProperties":false}"#;
const ARITHMETIC: &str = "root ::= sum\nsum ::= product (\" + \" product)*\nproduct ::= value (\" * \" value)*\n\
    value ::= [0-9]+ | \"(\" sum \")\"\n";
const TOKENS: usize = 4000;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("the path of a GGUF file with a vocabulary is needed")?;
    let file = std::fs::read(path)?;
    let tokenizer = Tokenizer::from_gguf(&gguf::Gguf::parse(&file, file.len() as u64)?)?;
    let size = tokenizer.vocab_size();
    let before = resident();
    let started = Instant::now();
    let vocabulary = Vocabulary::new(&tokenizer)?;
    println!("{size} tokens: tree {:.0?}, {} MiB", started.elapsed(), (resident() - before) >> 10);
    let forms = [
        ("any JSON", Form::Json),
        ("a schema", Form::JsonSchema(PERSON.replace("\\#", "#"))),
        ("a regular expression", Form::Regex("([A-Z][a-z ]{1,30}[.!?] ){1,40}".into())),
        ("a grammar", Form::Grammar(ARITHMETIC.into())),
        ("any text", Form::Regex("(?s).*".into())),
    ];
    for (name, form) in &forms {
        let (compile, mut masks, mut accepts) = measure(&vocabulary, &tokenizer, form)?;
        println!("{name}: compile {compile:.1?}; mask {}; accept {}", spread(&mut masks), spread(&mut accepts));
    }
    let logits: Vec<f32> = (0..size as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 1e6).collect();
    let mut sampler = Sampler::new(Params::default())?;
    let mut grammar = vocabulary.compile(&Form::Json)?;
    let mask = grammar.mask()?.ok_or("no mask")?;
    for (name, mask) in [("without", None), ("with", Some(mask))] {
        let mut times = Vec::new();
        for _ in 0..300 {
            let started = Instant::now();
            match mask {
                Some(mask) => sampler.sample_masked(&logits, mask)?,
                None => sampler.sample(&logits)?,
            };
            times.push(started.elapsed());
        }
        println!("sampling {name} a mask: {}", spread(&mut times));
    }
    Ok(())
}

/// Compiling, each mask, each accepted token.
type Times = (Duration, Vec<Duration>, Vec<Duration>);

fn measure(vocabulary: &Vocabulary, tokenizer: &Tokenizer, form: &Form) -> Result<Times, Box<dyn Error>> {
    let started = Instant::now();
    let first = vocabulary.compile(form)?;
    let compile = started.elapsed();
    let (mut masks, mut accepts) = (Vec::new(), Vec::new());
    let mut grammar = first.clone();
    let mut random = 1u64;
    let mut length = 0;
    while masks.len() < TOKENS {
        let started = Instant::now();
        let mask = grammar.mask()?.ok_or("no mask")?;
        masks.push(started.elapsed());
        let allowed: Vec<u32> = (0..mask.len() as u32).filter(|token| mask.allows(*token)).collect();
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let token = allowed[(random >> 33) as usize % allowed.len()];
        let started = Instant::now();
        grammar.accept(token)?;
        accepts.push(started.elapsed());
        length += 1;
        if grammar.is_complete() || tokenizer.is_eog(token) || length == 500 {
            (grammar, length) = (vocabulary.compile(form)?, 0);
        }
    }
    Ok((compile, masks, accepts))
}

fn spread(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    let mean = times.iter().sum::<Duration>() / times.len() as u32;
    format!("mean {mean:.0?}, median {:.0?}, 99 % {:.0?}, longest {:.0?}", at(0.5), at(0.99), at(1.0))
}

/// Resident memory in KiB, where the system says so.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
