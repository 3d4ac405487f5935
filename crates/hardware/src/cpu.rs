//! The processor.

use serde::Serialize;
use sysinfo::{CpuRefreshKind, System};

/// The processor and what its cores can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cpu {
    /// As the processor names itself; empty when the system does not tell.
    pub name: String,
    /// Cores, without hardware threads; `None` when the system does not tell.
    pub physical_cores: Option<usize>,
    /// Hardware threads of the machine.
    pub logical_cores: usize,
    /// Threads that this process may run at once: hardware threads within its affinity mask and quota.
    pub available_threads: usize,
    /// Instruction set extensions that matter for inference, by their usual lower-case names, such as "avx2".
    pub features: Vec<String>,
}

impl Cpu {
    /// Whether the processor, and the system, support an extension.
    pub fn has(&self, feature: &str) -> bool {
        self.features.iter().any(|f| f == feature)
    }
}

pub(crate) fn probe(system: Option<&mut System>) -> Cpu {
    let available_threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (name, logical_cores) = match system {
        Some(system) => {
            system.refresh_cpu_list(CpuRefreshKind::nothing());
            let name = system.cpus().first().map(|cpu| cpu.brand().trim().to_owned());
            (name.unwrap_or_default(), system.cpus().len())
        }
        None => (String::new(), 0),
    };
    Cpu {
        name,
        physical_cores: System::physical_core_count().ok(),
        logical_cores: logical_cores.max(available_threads),
        available_threads,
        features: features(),
    }
}

#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
fn features() -> Vec<String> {
    let known = [
        ("sse4.1", is_x86_feature_detected!("sse4.1")),
        ("avx", is_x86_feature_detected!("avx")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("avxvnni", is_x86_feature_detected!("avxvnni")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bw", is_x86_feature_detected!("avx512bw")),
        ("avx512vl", is_x86_feature_detected!("avx512vl")),
        ("avx512dq", is_x86_feature_detected!("avx512dq")),
        ("avx512vbmi", is_x86_feature_detected!("avx512vbmi")),
        ("avx512vnni", is_x86_feature_detected!("avx512vnni")),
        ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
        ("avx512fp16", is_x86_feature_detected!("avx512fp16")),
    ];
    detected(&known)
}

#[cfg(target_arch = "aarch64")]
fn features() -> Vec<String> {
    use std::arch::is_aarch64_feature_detected as has;
    let known = [
        ("neon", has!("neon")),
        ("fp16", has!("fp16")),
        ("dotprod", has!("dotprod")),
        ("i8mm", has!("i8mm")),
        ("bf16", has!("bf16")),
        ("sve", has!("sve")),
    ];
    detected(&known)
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64")))]
fn features() -> Vec<String> {
    detected(&[])
}

fn detected(known: &[(&str, bool)]) -> Vec<String> {
    known.iter().filter(|(_, has)| *has).map(|(name, _)| (*name).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_machine_has_cores() {
        let mut system = crate::memory::system();
        let cpu = super::probe(system.as_mut());
        assert!(cpu.available_threads >= 1 && cpu.logical_cores >= cpu.available_threads);
        assert!(cpu.physical_cores.is_none_or(|cores| cores >= 1 && cores <= cpu.logical_cores));
        assert!(!cpu.has("no such extension"));
    }

    /// Every wider extension comes with the ones it builds on.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn features_are_consistent() {
        let cpu = super::probe(None);
        for (wide, narrow) in [("avx2", "avx"), ("avx512f", "avx2"), ("avx512vnni", "avx512f"), ("avx", "sse4.1")] {
            assert!(!cpu.has(wide) || cpu.has(narrow), "{wide} without {narrow}");
        }
    }
}
