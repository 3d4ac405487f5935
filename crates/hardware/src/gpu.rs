//! NVIDIA GPUs, or the reason why there are none to use.

use serde::Serialize;

use crate::nvml::{self, Answer, Failure};

/// The oldest driver that runs PTX of CUDA 12.0, which our kernels are compiled to; Windows counts it as 527.41.
pub const NEEDED_DRIVER: &str = "525.60";

/// The CUDA version that [`NEEDED_DRIVER`] brings, as the driver numbers it: 1000 x major + 10 x minor.
const NEEDED_CUDA: i32 = 12_000;

/// Why no GPU can be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum GpuReason {
    /// The NVIDIA driver is not installed or not loaded.
    NoDriver,
    /// The driver is older than our kernels need.
    DriverTooOld { found: String, needed: String },
    /// There is no NVIDIA GPU.
    NoDevice,
    /// The driver or the GPU reports a failure.
    BadState { detail: String },
}

/// A program that holds memory of a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GpuProcess {
    pub pid: u32,
    /// Its program's name, when the driver tells.
    pub name: Option<String>,
    /// Bytes it holds; Windows does not tell the driver.
    pub vram: Option<u64>,
}

/// Why a GPU computes slower than it could.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Throttle {
    /// It, or its memory, is too hot.
    Heat,
    /// It takes as much power as it may.
    PowerLimit,
    /// The power supply asks it to take less.
    PowerSupply,
    /// The card slows itself down and does not say why.
    Hardware,
}

/// One GPU, in bytes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Gpu {
    /// Its number in the driver's order.
    pub index: u32,
    /// What it is called for good, such as "GPU-00112233-4455-6677-8899-aabbccddeeff"; CUDA calls it the same.
    pub id: Option<String>,
    pub name: String,
    /// Its own memory in all, and what is free of it now.
    pub vram_total: u64,
    pub vram_free: u64,
    pub driver_version: Option<String>,
    /// Major and minor, such as (8, 9).
    pub compute_capability: Option<(u32, u32)>,
    /// PCI Express generation and lanes in use; both fall while the GPU rests.
    pub pcie: Option<(u32, u32)>,
    /// What the link can do at most.
    pub pcie_max: Option<(u32, u32)>,
    /// Degrees Celsius.
    pub temperature: Option<u32>,
    /// Programs that hold its memory; `None` when the driver does not tell.
    pub processes: Option<Vec<GpuProcess>>,
}

/// The GPUs and what the system says of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct GpuStatus {
    /// GPUs that answer, whether they can be used or not.
    pub gpus: Vec<Gpu>,
    pub driver_version: Option<String>,
    /// The newest CUDA version that the driver runs: major and minor.
    pub cuda_version: Option<(u32, u32)>,
    /// Why the GPUs cannot be used, as far as driver and devices are concerned.
    pub reason: Option<GpuReason>,
}

/// Asks the driver. Takes some milliseconds; the first use of a sleeping GPU's driver may take a second.
pub fn gpus() -> GpuStatus {
    let answer = nvml::ask();
    // Looking for the card itself matters only where the driver does not answer.
    let card =
        if matches!(answer, Answer::NoLibrary | Answer::Failed(Failure::NotLoaded)) { card_present() } else { None };
    judge(answer, card)
}

/// Turns the driver's answer into a status. `card`: whether an NVIDIA card is plugged in, where that is known.
fn judge(answer: Answer, card: Option<bool>) -> GpuStatus {
    let because = |reason| GpuStatus { reason: Some(reason), ..GpuStatus::default() };
    let facts = match answer {
        Answer::NoLibrary | Answer::Failed(Failure::NotLoaded) => {
            return because(if card == Some(false) { GpuReason::NoDevice } else { GpuReason::NoDriver });
        }
        Answer::Failed(Failure::MissingFunction { driver }) => {
            let found = driver.unwrap_or_else(|| "unknown".to_owned());
            return because(GpuReason::DriverTooOld { found, needed: NEEDED_DRIVER.to_owned() });
        }
        Answer::Failed(Failure::Other(detail)) => return because(GpuReason::BadState { detail }),
        Answer::Facts(facts) => facts,
    };
    let failures: Vec<String> = facts.devices.iter().filter_map(|d| d.as_ref().err().cloned()).collect();
    let gpus: Vec<Gpu> = facts.devices.into_iter().filter_map(Result::ok).collect();
    let too_old = match facts.cuda_driver {
        Some(cuda) => cuda < NEEDED_CUDA,
        None => facts.driver.as_deref().is_some_and(|driver| older(driver, NEEDED_DRIVER)),
    };
    let reason = if gpus.is_empty() {
        Some(match failures.is_empty() {
            true => GpuReason::NoDevice,
            false => GpuReason::BadState { detail: failures.join("; ") },
        })
    } else if too_old {
        let found = facts.driver.clone().unwrap_or_else(|| "unknown".to_owned());
        Some(GpuReason::DriverTooOld { found, needed: NEEDED_DRIVER.to_owned() })
    } else {
        None
    };
    let version = |cuda: i32| Some((u32::try_from(cuda).ok()? / 1000, u32::try_from(cuda).ok()? % 1000 / 10));
    GpuStatus { gpus, driver_version: facts.driver, cuda_version: facts.cuda_driver.and_then(version), reason }
}

/// Compares versions number by number.
fn older(version: &str, than: &str) -> bool {
    let numbers = |v: &str| v.split('.').map(|n| n.parse::<u32>().unwrap_or(0)).collect::<Vec<_>>();
    numbers(version) < numbers(than)
}

/// Whether an NVIDIA display adapter is plugged in, driver or not.
#[cfg(target_os = "linux")]
fn card_present() -> Option<bool> {
    let devices = std::fs::read_dir("/sys/bus/pci/devices").ok()?;
    let text = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    Some(devices.flatten().any(|d| is_nvidia_display(&text(d.path().join("vendor")), &text(d.path().join("class")))))
}

#[cfg(windows)]
fn card_present() -> Option<bool> {
    let gpus = sysinfo::Gpus::new_with_refreshed_list().ok()?;
    Some(gpus.iter().any(|gpu| gpu.vendor().is_some_and(|vendor| vendor.to_ascii_lowercase().contains("nvidia"))))
}

#[cfg(not(any(target_os = "linux", windows)))]
fn card_present() -> Option<bool> {
    None
}

/// PCI vendor 10de is NVIDIA; class 03 is display controllers, 12 processing accelerators.
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
fn is_nvidia_display(vendor: &str, class: &str) -> bool {
    vendor.trim() == "0x10de" && (class.trim().starts_with("0x03") || class.trim().starts_with("0x12"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nvml::Facts;

    fn card() -> Gpu {
        Gpu {
            index: 0,
            id: None,
            name: "NVIDIA GeForce RTX 3060".into(),
            vram_total: 12 << 30,
            vram_free: 11 << 30,
            driver_version: Some("550.54".into()),
            compute_capability: Some((8, 6)),
            pcie: None,
            pcie_max: Some((4, 16)),
            temperature: Some(40),
            processes: None,
        }
    }

    fn facts(driver: &str, cuda: Option<i32>, devices: Vec<Result<Gpu, String>>) -> Answer {
        Answer::Facts(Facts { driver: Some(driver.into()), cuda_driver: cuda, devices })
    }

    #[test]
    fn a_missing_library_means_no_driver_or_no_card() {
        for answer in [|| Answer::NoLibrary, || Answer::Failed(Failure::NotLoaded)] {
            assert_eq!(judge(answer(), Some(true)).reason, Some(GpuReason::NoDriver));
            assert_eq!(judge(answer(), Some(false)).reason, Some(GpuReason::NoDevice));
            assert_eq!(judge(answer(), None).reason, Some(GpuReason::NoDriver));
        }
    }

    #[test]
    fn an_old_driver_is_named_with_the_needed_one() {
        let old = GpuReason::DriverTooOld { found: "470.82".into(), needed: NEEDED_DRIVER.into() };
        let status = judge(facts("470.82", Some(11_040), vec![Ok(card())]), None);
        assert_eq!(status.reason, Some(old.clone()));
        assert_eq!(status.cuda_version, Some((11, 4)));
        assert_eq!(status.gpus.len(), 1);
        assert_eq!(judge(facts("470.82", None, vec![Ok(card())]), None).reason, Some(old.clone()));
        let missing = Failure::MissingFunction { driver: Some("470.82".into()) };
        assert_eq!(judge(Answer::Failed(missing), None).reason, Some(old));
    }

    #[test]
    fn a_good_card_has_no_reason_not_to_be_used() {
        let status = judge(facts("550.54", Some(12_040), vec![Ok(card())]), None);
        assert_eq!((status.reason.as_ref(), status.cuda_version), (None, Some((12, 4))));
    }

    #[test]
    fn failures_are_reported_unless_another_card_works() {
        let lost = || Err("device 0: lost".to_owned());
        let bad = |detail: &str| Some(GpuReason::BadState { detail: detail.into() });
        assert_eq!(judge(facts("550", Some(12_040), vec![lost()]), None).reason, bad("device 0: lost"));
        assert_eq!(judge(facts("550", Some(12_040), vec![lost(), Ok(card())]), None).reason, None);
        assert_eq!(judge(facts("550", Some(12_040), vec![]), None).reason, Some(GpuReason::NoDevice));
        assert_eq!(judge(Answer::Failed(Failure::Other("mismatch".into())), None).reason, bad("mismatch"));
        assert_eq!(judge(facts("550", Some(-1), vec![Ok(card())]), None).cuda_version, None);
    }

    #[test]
    fn versions_compare_by_number() {
        assert!(older("525.59.99", "525.60") && older("99.1", "525.60") && older("525", "525.60"));
        assert!(!older("525.60", "525.60") && !older("525.60.13", "525.60") && !older("1000.1", "525.60"));
    }

    #[test]
    fn reasons_are_tagged_for_the_user_interface() {
        let json = |reason| serde_json::to_value(reason).unwrap();
        assert_eq!(json(GpuReason::NoDriver), serde_json::json!({"type": "no_driver"}));
        let old = GpuReason::DriverTooOld { found: "1".into(), needed: "2".into() };
        assert_eq!(json(old), serde_json::json!({"type": "driver_too_old", "found": "1", "needed": "2"}));
    }

    #[test]
    fn cards_are_known_by_their_pci_class() {
        assert!(is_nvidia_display("0x10de\n", "0x030000\n") && is_nvidia_display("0x10de", "0x030200"));
        assert!(!is_nvidia_display("0x1002\n", "0x030000\n"));
        // The audio function of a graphics card.
        assert!(!is_nvidia_display("0x10de\n", "0x040300\n"));
    }
}
