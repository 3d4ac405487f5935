//! The programs that are run: test programs, the comparison with reference data, the measuring, compute-sanitizer.

use crate::Options;
use crate::row::Row;
use anyhow::{Context, Result};
use backend_cuda::Card;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The first argument with which this program compares with reference data.
pub const CONFORMANCE: &str = "conformance";
/// One test program on the GPU takes seconds; one that hangs gets this part of the whole time.
const TESTS_PART: u32 = 3;
const SANITIZER_PART: u32 = 8;
/// The tools of compute-sanitizer: wrong addresses, races in shared memory, barriers that not all reach.
const TOOLS: &[&str] = &["memcheck", "racecheck", "synccheck"];
/// Each kind of kernel, once; whole models would take hours under it.
const SANITIZED: (&str, &str) = ("device", "operations::");

/// Which GPU this is about.
pub fn card() -> Result<Row> {
    let card = Card::open(0).map_err(|absent| anyhow::anyhow!("no GPU can be used: {absent:?}"))?;
    let (major, minor) = card.capability();
    let text = format!("capability {major}.{minor}, {} MiB, CUDA {}", card.total_bytes() >> 20, card.cuda_version());
    Ok(Row::figure(card.name(), text))
}

/// Every program in `tests`, on the NVIDIA driver.
pub fn tests(options: &Options, rows: &mut Vec<Row>) -> Result<()> {
    for program in programs(&options.folder.join("tests"))? {
        let name = name(&program);
        let mut command = test(options, &program);
        let ended =
            run(&mut command, &options.folder, &format!("test-{name}"), left(options, options.time / TESTS_PART))?;
        let results: Vec<(u64, u64)> = ended.lines.iter().filter_map(|line| counts(line)).collect();
        let (passed, failed) = results.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        for line in ended.lines.iter().filter(|line| line.starts_with("test ") && line.ends_with("FAILED")) {
            rows.push(Row::check(format!("{name}: {}", line.trim_start_matches("test ")), "", false, ""));
        }
        let good = ended.success && passed > 0 && failed == 0;
        let value = format!("{passed} passed, {failed} failed, {:.0} s", ended.seconds);
        rows.push(Row::check(format!("tests: {name}"), value, good, ended.wanted("all pass")));
    }
    Ok(())
}

/// Logits of the reference models at every placement, where the folder was packed with them.
pub fn conformance(options: &Options, rows: &mut Vec<Row>) -> Result<()> {
    let data = options.folder.join("reference");
    if !data.is_dir() {
        rows.push(Row::figure(CONFORMANCE, "left out: packed without reference data"));
        return Ok(());
    }
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(CONFORMANCE).arg(data).arg("--gpu");
    let ended = run(&mut command, &options.folder, CONFORMANCE, left(options, options.time / TESTS_PART))?;
    let last = ended.lines.iter().rev().find(|line| line.contains(" passed, ")).cloned().unwrap_or_default();
    for line in ended.lines.iter().filter(|line| line.starts_with("FAILED")).take(10) {
        rows.push(Row::check(line.clone(), "", false, ""));
    }
    rows.push(Row::check("conformance on every split", last, ended.success, ended.wanted("within tolerances")));
    Ok(())
}

/// Measures in a process of its own.
pub fn bench(options: &Options, rows: &mut Vec<Row>) -> Result<()> {
    let time = left(options, Duration::MAX);
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--inner", "--models"]).arg(&options.models);
    command.args(["--minutes", &format!("{:.2}", time.as_secs_f64() / 60.0)]);
    if options.tiny {
        command.arg("--tiny");
    }
    let ended = run(&mut command, &options.folder, "bench", time + Duration::from_secs(60))?;
    let found = rows.len();
    rows.extend(ended.lines.iter().filter_map(|line| Row::parse(line)));
    let measured = rows.len() > found;
    rows.push(Row::check(
        "measuring",
        format!("{:.0} s", ended.seconds),
        ended.success && measured,
        ended.wanted("ends"),
    ));
    Ok(())
}

/// The kernels under NVIDIA's compute-sanitizer, where it is installed and there is time left.
pub fn sanitizer(options: &Options, rows: &mut Vec<Row>) -> Result<()> {
    let places = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&places).collect();
    places.extend(["/usr/local/cuda/bin", "/opt/cuda/bin"].map(PathBuf::from));
    let found = places.iter().find_map(|folder| find(folder, "compute-sanitizer"));
    let (Some(sanitizer), Some(program)) = (found, find(&options.folder.join("tests"), SANITIZED.0)) else {
        rows.push(Row::figure("compute-sanitizer", "left out: not installed"));
        return Ok(());
    };
    for tool in TOOLS {
        let time = left(options, options.time / SANITIZER_PART);
        if time < options.time / 60 {
            rows.push(Row::figure(format!("compute-sanitizer {tool}"), "left out: no time"));
            continue;
        }
        let mut command = Command::new(&sanitizer);
        command.args(["--tool", tool, "--error-exitcode", "99"]).arg(&program).args([
            "--test-threads",
            "1",
            SANITIZED.1,
        ]);
        on_the_driver(options, &mut command);
        let ended = run(&mut command, &options.folder, &format!("sanitizer-{tool}"), time)?;
        let last = ended.lines.iter().rev().find(|line| line.contains("ERROR SUMMARY")).cloned().unwrap_or_default();
        let value = last.trim_start_matches(['=', ' ']).to_owned();
        rows.push(Row::check(format!("compute-sanitizer {tool}"), value, ended.success, ended.wanted("no errors")));
    }
    Ok(())
}

fn test(options: &Options, program: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["--test-threads", "1"]).args(&options.tests);
    on_the_driver(options, &mut command);
    command
}

fn on_the_driver(options: &Options, command: &mut Command) {
    command.env("HEADROOM_DRIVER", "cuda").env("HEADROOM_FIXTURES", options.folder.join("fixtures"));
}

/// How a program ended.
struct Ended {
    success: bool,
    in_time: bool,
    seconds: f64,
    lines: Vec<String>,
}

impl Ended {
    fn wanted(&self, what: &str) -> String {
        if self.in_time { what.into() } else { "ended because it took too long".into() }
    }
}

/// Runs a program for `longest` at most. What it says goes to logs/NAME.txt and, while it runs, to the terminal.
fn run(command: &mut Command, folder: &Path, name: &str, longest: Duration) -> Result<Ended> {
    println!("==> {name}");
    let started = Instant::now();
    let logs = folder.join("logs");
    std::fs::create_dir_all(&logs).with_context(|| logs.display().to_string())?;
    let errors = std::fs::File::create(logs.join(format!("{name}-errors.txt")))?;
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors).spawn();
    let child = child.as_mut().map_err(|error| anyhow::anyhow!("{name} cannot start: {error}"))?;
    let output = child.stdout.take().context("a child without output")?;
    let said = Arc::new(Mutex::new(Vec::new()));
    let lines = said.clone();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            println!("    {line}");
            lock(&lines).push(line);
        }
    });
    let status = wait(child, started, longest)?;
    // A program that was ended may have left others that hold its output open.
    if status.is_some() {
        reader.join().map_err(|_| anyhow::anyhow!("the output of {name} was lost"))?;
    }
    let lines = lock(&said).clone();
    std::fs::write(logs.join(format!("{name}.txt")), lines.join("\n"))?;
    let seconds = started.elapsed().as_secs_f64();
    Ok(Ended { success: status == Some(true), in_time: status.is_some(), seconds, lines })
}

/// Lines are added whole under the lock, so a panic elsewhere leaves them usable.
fn lock(lines: &Mutex<Vec<String>>) -> MutexGuard<'_, Vec<String>> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the child succeeded; `None` if it had to be ended.
fn wait(child: &mut Child, started: Instant, longest: Duration) -> Result<Option<bool>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        if started.elapsed() > longest {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What is left of the whole time, and `most` at most.
fn left(options: &Options, most: Duration) -> Duration {
    options.end.saturating_duration_since(Instant::now()).min(most)
}

/// (passed, failed) of a test program's closing line.
fn counts(line: &str) -> Option<(u64, u64)> {
    let mut words = line.strip_prefix("test result:")?.split([' ', ';']).filter(|word| !word.is_empty());
    words.next()?;
    let passed = words.next()?.parse().ok()?;
    words.next()?;
    Some((passed, words.next()?.parse().ok()?))
}

/// The programs in a folder, in order of their names.
fn programs(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut programs: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    programs.sort();
    Ok(programs)
}

fn name(program: &Path) -> String {
    program.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let path = folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    path.is_file().then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_read() {
        let line = "test result: FAILED. 11 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s";
        assert_eq!(counts(line), Some((11, 2)));
        assert_eq!(counts("test result"), None);
        assert_eq!(counts("running 3 tests"), None);
    }
}
