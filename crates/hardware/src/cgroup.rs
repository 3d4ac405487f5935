//! Memory limits of Linux control groups (containers, systemd slices), version 1 and 2.
//!
//! Formats: <https://docs.kernel.org/admin-guide/cgroup-v2.html#memory> and
//! <https://docs.kernel.org/admin-guide/cgroup-v1/memory.html>.

use serde::Serialize;

/// The tightest memory limit that holds for this process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct GroupMemory {
    pub limit: u64,
    /// Bytes that the group's processes use, their page cache included.
    pub used: u64,
    /// Page cache among them that the kernel gives up first.
    pub reclaimable: u64,
}

impl GroupMemory {
    /// Bytes that can be taken before the limit is reached.
    pub fn available(&self) -> u64 {
        self.limit.saturating_sub(self.used.saturating_sub(self.reclaimable))
    }
}

/// The limit that leaves least, where there is one.
#[cfg(target_os = "linux")]
pub(crate) fn probe() -> Option<GroupMemory> {
    find(|path| std::fs::read_to_string(path).ok())
}

/// Control groups exist on Linux only.
#[cfg(not(target_os = "linux"))]
pub(crate) fn probe() -> Option<GroupMemory> {
    None
}

/// Names of the files of one version.
struct Version {
    limit: &'static str,
    used: &'static str,
    /// The key in `memory.stat` of the page cache that is not in use.
    reclaimable: &'static str,
}

const V1: Version =
    Version { limit: "memory.limit_in_bytes", used: "memory.usage_in_bytes", reclaimable: "total_inactive_file" };
const V2: Version = Version { limit: "memory.max", used: "memory.current", reclaimable: "inactive_file" };

/// Walks from the process's group up to the root and takes the limit that leaves least. `read` gives a file's text.
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
fn find(read: impl Fn(&str) -> Option<String>) -> Option<GroupMemory> {
    let groups = read("/proc/self/cgroup")?;
    let mounts = read("/proc/self/mounts")?;
    let mut tightest: Option<GroupMemory> = None;
    for line in groups.lines() {
        // hierarchy-id:controllers:path
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let (version, mount) = if controllers.is_empty() {
            (V2, mount_of(&mounts, "cgroup2", None))
        } else if controllers.split(',').any(|c| c == "memory") {
            (V1, mount_of(&mounts, "cgroup", Some("memory")))
        } else {
            continue;
        };
        let Some(mount) = mount else { continue };
        for folder in folders(&mount, path) {
            let Some(group) = group(&read, &folder, &version) else { continue };
            if tightest.is_none_or(|t| group.available() < t.available()) {
                tightest = Some(group);
            }
        }
    }
    tightest
}

/// Where a version is mounted.
fn mount_of(mounts: &str, kind: &str, option: Option<&str>) -> Option<String> {
    mounts.lines().find_map(|line| {
        // device folder kind options ...
        let fields: Vec<&str> = line.split(' ').collect();
        let [_, folder, this_kind, options, ..] = fields[..] else { return None };
        let fits = this_kind == kind && option.is_none_or(|option| options.split(',').any(|o| o == option));
        fits.then(|| folder.to_owned())
    })
}

/// The group's folder and those above it. Inside a container the path may name a group that only the host sees; the
/// mount's root is then the container's own group.
fn folders(mount: &str, path: &str) -> Vec<String> {
    let mut path = path.trim_end_matches('/');
    let mut folders = Vec::new();
    while !path.is_empty() && !path.contains("..") {
        folders.push(format!("{mount}{path}"));
        path = path.rsplit_once('/').map_or("", |(above, _)| above);
    }
    folders.push(mount.to_owned());
    folders
}

fn group(read: &impl Fn(&str) -> Option<String>, folder: &str, version: &Version) -> Option<GroupMemory> {
    // Version 1 says "no limit" with a number near 2^63, version 2 with "max".
    const UNLIMITED: u64 = 1 << 60;
    let limit = read(&format!("{folder}/{}", version.limit))?.trim().parse().ok().filter(|limit| *limit < UNLIMITED)?;
    let used = read(&format!("{folder}/{}", version.used))?.trim().parse().ok()?;
    let stat = read(&format!("{folder}/memory.stat")).unwrap_or_default();
    let reclaimable = stat.lines().find_map(|line| line.strip_prefix(version.reclaimable)?.trim().parse().ok());
    Some(GroupMemory { limit, used, reclaimable: reclaimable.unwrap_or(0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find_in(files: &[(&str, &str)]) -> Option<GroupMemory> {
        find(|path| files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned()))
    }

    const V2_MOUNT: (&str, &str) =
        ("/proc/self/mounts", "sysfs /sys sysfs rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n");
    const V1_MOUNTS: (&str, &str) = (
        "/proc/self/mounts",
        "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0\n\
         cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n",
    );

    #[test]
    fn version_2_takes_the_tightest_limit_above() {
        let files = [
            V2_MOUNT,
            ("/proc/self/cgroup", "0::/user.slice/app.scope\n"),
            ("/sys/fs/cgroup/user.slice/app.scope/memory.max", "max\n"),
            ("/sys/fs/cgroup/user.slice/app.scope/memory.current", "1000\n"),
            ("/sys/fs/cgroup/user.slice/memory.max", "4000\n"),
            ("/sys/fs/cgroup/user.slice/memory.current", "3000\n"),
            ("/sys/fs/cgroup/user.slice/memory.stat", "anon 1\nfile 900\ninactive_file 500\nactive_file 400\n"),
        ];
        let group = find_in(&files).unwrap();
        assert_eq!(group, GroupMemory { limit: 4000, used: 3000, reclaimable: 500 });
        assert_eq!(group.available(), 1500);
    }

    #[test]
    fn version_1_is_read_within_a_container() {
        // The path is the host's; only the mount's root exists here.
        let files = [
            V1_MOUNTS,
            ("/proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n0::/\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "2147483648\n"),
            ("/sys/fs/cgroup/memory/memory.usage_in_bytes", "1073741824\n"),
            ("/sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 1048576\n"),
        ];
        let group = find_in(&files).unwrap();
        assert_eq!(group, GroupMemory { limit: 1 << 31, used: 1 << 30, reclaimable: 1 << 20 });
    }

    #[test]
    fn no_limit_is_no_limit() {
        let unlimited = [
            V1_MOUNTS,
            ("/proc/self/cgroup", "4:memory:/\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("/sys/fs/cgroup/memory/memory.usage_in_bytes", "1\n"),
        ];
        assert_eq!(find_in(&unlimited), None);
        assert_eq!(find_in(&[V2_MOUNT, ("/proc/self/cgroup", "0::/\n")]), None);
        assert_eq!(find_in(&[]), None);
        let garbage = [
            V2_MOUNT,
            ("/proc/self/cgroup", "nonsense\n0::/../..\n::\n"),
            ("/sys/fs/cgroup/memory.max", "-5\n"),
            ("/sys/fs/cgroup/memory.current", "x\n"),
        ];
        assert_eq!(find_in(&garbage), None);
    }
}
