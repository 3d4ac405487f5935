//! What was measured, as a table.

use super::{Case, PROMPT};
use anyhow::{Context, Result};
use serde_json::Value;
use std::fmt;

/// What the machine can do, as `headroom doctor` measures it.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    cpu: String,
    pub cores: u32,
    /// Threads, and bytes that they read per second.
    reads: Vec<(u32, f64)>,
    /// 8-bit multiply-adds of all cores per second, by the best instructions.
    int8: Option<f64>,
}

/// One run of one program.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    load: Option<f64>,
    prompt: f64,
    generation: f64,
    /// Both for a second of the processor instead of the clock.
    by_processor: [Option<f64>; 2],
    private: Option<f64>,
    resident: Option<f64>,
    /// Ours says what a token takes.
    work: Option<Work>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Work {
    bytes: f64,
    adds: f64,
    /// Bytes of the whole KV cache.
    kv: f64,
}

/// Runs of ours, of the peer, and of the peer that repacks; a run of each is a round.
#[derive(Debug, Default)]
pub struct Runs {
    pub programs: [Vec<Run>; 3],
}

impl Limits {
    pub fn read(doctor: &Value) -> Result<Limits> {
        let reads = doctor["ram"]["by_threads"].as_array().context("doctor names no bandwidths")?;
        let read = |read: &Value| Some((read["threads"].as_u64()? as u32, read["read_bytes_per_s"].as_f64()?));
        Ok(Limits {
            cpu: doctor["cpu"]["name"].as_str().context("doctor names no CPU")?.trim().into(),
            cores: doctor["cpu"]["physical_cores"].as_u64().context("doctor counts no cores")? as u32,
            reads: reads.iter().filter_map(read).collect(),
            int8: Some(doctor["cpu"]["int8_limit_per_s"].as_f64().context("doctor measured no arithmetic")?),
        })
    }

    /// For other instructions than the best.
    pub fn without_arithmetic(self) -> Limits {
        Limits { int8: None, ..self }
    }

    /// Of the next count of threads that was measured.
    fn bandwidth(&self, threads: u32) -> f64 {
        let enough = self.reads.iter().find(|(count, _)| *count >= threads);
        enough.or(self.reads.last()).map_or(f64::NAN, |(_, rate)| *rate)
    }

    fn arithmetic(&self, threads: u32) -> Option<f64> {
        self.int8.map(|int8| int8 / f64::from(self.cores.max(1)) * f64::from(threads.min(self.cores)))
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reads = self.reads.iter().map(|(threads, rate)| format!("{:.1} GB/s by {threads}", rate / 1e9));
        let reads = reads.collect::<Vec<_>>().join(", ");
        write!(f, "{}: reads {reads}", self.cpu)?;
        self.int8.map_or(Ok(()), |int8| write!(f, "; {:.2} * 10^12 int8 multiply-adds/s", int8 / 1e12))
    }
}

impl Run {
    pub fn read(value: &Value) -> Result<Run> {
        let rate = |part: &str| value[part]["tps"][0].as_f64().with_context(|| format!("no rate {part} in {value}"));
        let number = |name: &str| value[name].as_f64();
        let work = || {
            Some(Work {
                bytes: number("bytes_per_token")?,
                adds: number("multiply_adds_per_token")?,
                kv: number("kv_bytes")?,
            })
        };
        Ok(Run {
            load: Some(number("load_s").context("no time of loading")?),
            prompt: rate("pp")?,
            generation: rate("tg")?,
            by_processor: ["pp", "tg"].map(|part| value[part]["processor_tps"][0].as_f64()),
            private: number("peak_private_bytes"),
            resident: number("peak_rss_bytes"),
            work: work(),
        })
    }

    /// From `llama-bench -o json`: a list of tests, one with a prompt and one that generates.
    pub fn read_tests(value: &Value) -> Result<Run> {
        let rate = |part: &str| {
            let is_it = |test: &&Value| test[part].as_u64().is_some_and(|tokens| tokens > 0);
            let test = value.as_array().and_then(|tests| tests.iter().find(is_it));
            test.and_then(|test| test["avg_ts"].as_f64()).with_context(|| format!("no rate of {part} in {value}"))
        };
        let (prompt, generation) = (rate("n_prompt")?, rate("n_gen")?);
        let (load, by_processor, private, resident, work) = Default::default();
        Ok(Run { load, prompt, generation, by_processor, private, resident, work })
    }
}

/// A row: what is measured, and whether more is better.
struct Row<'a> {
    name: String,
    value: &'a dyn Fn(&Run) -> Option<f64>,
    more: bool,
    digits: usize,
    limit: Option<f64>,
}

pub fn table(cases: &[(Case, Runs)], limits: &Limits, peer: &str, tokens: u32, threads: u32) -> String {
    let mut lines = vec![
        format!("| | ours | {peer} | {peer}, repacked | ours to the better | limit | reached |"),
        "|---|---|---|---|---|---|---|".to_string(),
    ];
    for (case, runs) in cases {
        let mut place = if case.depth > 0 { format!(" behind {}, KV {}", case.depth, case.kv) } else { String::new() };
        if case.busy {
            place.push_str(", beside a busy core");
        }
        let work = runs.programs[0].first().and_then(|run| run.work);
        let generation = work.map(|work| {
            // On average half of the tokens to come stand in the cache, too.
            let cells = f64::from(case.depth) + f64::from(tokens) / 2.0;
            let all = f64::from(case.depth + PROMPT.max(tokens) + 1);
            limits.bandwidth(threads) / (work.bytes + work.kv * cells / all)
        });
        let work = work.filter(|_| case.depth == 0);
        let prompt = work.and_then(|work| limits.arithmetic(threads).map(|rate| rate / work.adds));
        let mut row = |name: String, value: &dyn Fn(&Run) -> Option<f64>, more, digits, limit| {
            let limit = if case.busy { None } else { limit };
            lines.push(line(&Row { name, value, more, digits, limit }, runs));
        };
        row(format!("prompt of {PROMPT}{place}, tokens/s"), &|run| Some(run.prompt), true, 1, prompt);
        row(format!("generation{place}, tokens/s"), &|run| Some(run.generation), true, 2, generation);
        if threads == 1 {
            // Programs beside it take time, but none that is counted here.
            let second = "tokens per second of the processor";
            row(format!("prompt of {PROMPT}{place}, {second}"), &|run| run.by_processor[0], true, 1, None);
            row(format!("generation{place}, {second}"), &|run| run.by_processor[1], true, 2, None);
        }
        if !case.busy {
            let mib = |bytes: Option<f64>| bytes.map(|bytes| bytes / f64::from(1 << 20));
            row(format!("load{place}, s"), &|run| run.load, false, 2, None);
            row(format!("peak of private memory{place}, MiB"), &|run| mib(run.private), false, 0, None);
            row(format!("peak of resident memory{place}, MiB"), &|run| mib(run.resident), false, 0, None);
        }
    }
    lines.extend(shares(cases));
    lines.join("\n")
}

fn line(row: &Row<'_>, runs: &Runs) -> String {
    let values = runs.programs.each_ref().map(|runs| runs.iter().map(|run| (row.value)(run)).collect::<Vec<_>>());
    let medians = values.each_ref().map(|values| median(values.iter().copied().flatten().collect()));
    let show = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.*}", row.digits));
    // In each round the better one of the peer, so that what disturbs a round disturbs both sides.
    let ratio = |round: usize| {
        let [ours, plain, repacked] = values.each_ref().map(|values| values.get(round).copied().flatten());
        let (ours, plain, repacked) = (ours?, plain?, repacked?);
        Some(if row.more { ours / plain.max(repacked) } else { plain.min(repacked) / ours })
    };
    let ratios: Vec<f64> = (0..values[0].len()).filter_map(ratio).collect();
    let (least, most) = ratios.iter().fold((f64::INFINITY, 0f64), |(low, high), x| (low.min(*x), high.max(*x)));
    let spread = median(ratios).map_or("-".into(), |middle| format!("{middle:.2} ({least:.2} to {most:.2})"));
    let reached =
        medians[0].zip(row.limit).map_or("-".into(), |(ours, limit)| format!("{:.0} %", 100.0 * ours / limit));
    let [ours, plain, repacked] = medians.map(show);
    format!("| {} | {ours} | {plain} | {repacked} | {spread} | {} | {reached} |", row.name, show(row.limit))
}

/// What stays of the speed beside a busy core.
fn shares(cases: &[(Case, Runs)]) -> Vec<String> {
    let quiet = cases.iter().find(|(case, _)| case.depth == 0 && !case.busy);
    let busy = cases.iter().find(|(case, _)| case.busy);
    let (Some((_, quiet)), Some((_, busy))) = (quiet, busy) else { return Vec::new() };
    let share = |name: &str, value: &dyn Fn(&Run) -> f64| {
        let middle = |runs: &[Run]| median(runs.iter().map(value).collect());
        let share = |index: usize| {
            let both = middle(&busy.programs[index]).zip(middle(&quiet.programs[index]));
            both.map_or("-".into(), |(busy, quiet)| format!("{:.0} %", 100.0 * busy / quiet))
        };
        format!(
            "| {name} beside a busy core, of the quiet speed | {} | {} | {} | - | - | - |",
            share(0),
            share(1),
            share(2)
        )
    };
    vec![share("prompt", &|run| run.prompt), share("generation", &|run| run.generation)]
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(prompt: f64, generation: f64, private: u64) -> Run {
        Run::read(&json!({
            "load_s": 0.5, "pp": { "tps": [prompt] }, "tg": { "tps": [generation] }, "peak_private_bytes": private << 20,
            "peak_rss_bytes": null, "bytes_per_token": 1e9, "multiply_adds_per_token": 1e9, "kv_bytes": 0,
        }))
        .unwrap()
    }

    fn limits() -> Limits {
        Limits { cpu: "X".into(), cores: 2, reads: vec![(1, 15e9), (2, 20e9)], int8: Some(4e11) }
    }

    fn row(text: &str, name: &str) -> String {
        text.lines().find(|line| line.starts_with(&format!("| {name}"))).unwrap().into()
    }

    #[test]
    fn medians_ratios_and_limits_stand_in_rows() {
        let ours = vec![run(100.0, 10.0, 100), run(300.0, 12.0, 100), run(200.0, 11.0, 100)];
        let plain = vec![run(50.0, 10.0, 200), run(100.0, 10.0, 200), run(100.0, 10.0, 200)];
        let repacked = vec![run(20.0, 20.0, 400), run(20.0, 16.0, 400), run(20.0, 11.0, 400)];
        let quiet = Case { depth: 0, kv: "f16".into(), busy: false };
        let busy = Runs { programs: [vec![run(50.0, 5.5, 1)], vec![run(50.0, 1.0, 1)], vec![run(20.0, 1.6, 1)]] };
        let cases = [(quiet.clone(), Runs { programs: [ours, plain, repacked] }), (Case { busy: true, ..quiet }, busy)];
        let text = table(&cases, &limits(), "peer", 64, 2);
        assert_eq!(
            row(&text, "prompt of 512, tokens/s"),
            "| prompt of 512, tokens/s | 200.0 | 100.0 | 20.0 | 2.00 (2.00 to 3.00) | 400.0 | 50 % |"
        );
        assert_eq!(
            row(&text, "generation, tokens/s"),
            "| generation, tokens/s | 11.00 | 10.00 | 16.00 | 0.75 (0.50 to 1.00) | 20.00 | 55 % |"
        );
        assert!(row(&text, "peak of private").ends_with("| 100 | 200 | 400 | 2.00 (2.00 to 2.00) | - | - |"));
        assert!(row(&text, "peak of resident").ends_with("| - | - | - | - | - | - |"));
        assert!(row(&text, "generation beside a busy core, of").contains("| 50 % | 10 % | 10 % |"));
    }

    #[test]
    fn tests_of_the_other_program_are_read() {
        let tests =
            json!([{ "n_prompt": 512, "n_gen": 0, "avg_ts": 61.5 }, { "n_prompt": 0, "n_gen": 64, "avg_ts": 9.25 }]);
        let run = Run::read_tests(&tests).unwrap();
        assert_eq!((run.prompt, run.generation, run.load, run.work), (61.5, 9.25, None, None));
        assert!(Run::read_tests(&json!([tests[0]])).is_err() && Run::read_tests(&json!({})).is_err());
    }

    #[test]
    fn one_thread_is_told_by_the_processor_too() {
        let mut run = run(1.0, 10.0, 1);
        run.by_processor = [Some(2.0), Some(20.0)];
        let case = || Case { depth: 0, kv: "f16".into(), busy: false };
        let runs = || Runs { programs: [vec![run.clone()], vec![run.clone()], vec![run.clone()]] };
        let text = table(&[(case(), runs())], &limits(), "peer", 64, 1);
        assert!(
            row(&text, "generation, tokens per second of the p").contains("| 20.00 | 20.00 | 20.00 | 1.00 ("),
            "{text}"
        );
        assert!(!table(&[(case(), runs())], &limits(), "peer", 64, 2).contains("second of the processor"));
    }

    #[test]
    fn the_cache_is_read_too() {
        let mut run = run(1.0, 10.0, 1);
        run.work = Some(Work { bytes: 1e9, adds: 1.0, kv: 1e9 });
        let case = Case { depth: 8192 - 32, kv: "f16".into(), busy: false };
        let runs = Runs { programs: [vec![run], Vec::new(), Vec::new()] };
        let text = table(&[(case, runs)], &limits(), "peer", 64, 2);
        // 8192 of 8673 cells, and the weights.
        assert!(
            row(&text, "generation behind 8160, KV f16").ends_with("| 10.00 | - | - | - | 10.29 | 97 % |"),
            "{text}"
        );
    }
}
