//! Disks: where files lie, and how much room there is.

use std::path::{Path, PathBuf};

use serde::Serialize;
use sysinfo::{DiskRefreshKind, Disks};

/// How a disk stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskKind {
    /// Flash: fast at any position.
    Ssd,
    /// Rotating: fast only in sequence.
    Hdd,
    /// The system does not tell.
    Unknown,
}

/// The disk (file system) that holds a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Disk {
    pub mount_point: PathBuf,
    pub file_system: String,
    pub kind: DiskKind,
    /// Bytes in all.
    pub total: u64,
    /// Bytes that this user may still write.
    pub free: u64,
    pub read_only: bool,
    pub removable: bool,
}

/// The disk that holds `path`, which need not exist yet; `None` when the system does not list it.
pub fn disk_of(path: &Path) -> Option<Disk> {
    let path = existing(path)?;
    let refresh = DiskRefreshKind::nothing().with_kind().with_storage();
    let disks = Disks::new_with_refreshed_list_specifics(refresh).ok()?;
    let disk = holder(&path, &disks, |disk| disk.mount_point())?;
    Some(Disk {
        mount_point: disk.mount_point().to_owned(),
        file_system: disk.file_system().to_string_lossy().into_owned(),
        kind: match disk.kind() {
            sysinfo::DiskKind::SSD => DiskKind::Ssd,
            sysinfo::DiskKind::HDD => DiskKind::Hdd,
            sysinfo::DiskKind::Unknown(_) => DiskKind::Unknown,
        },
        total: disk.total_space(),
        free: disk.available_space(),
        read_only: disk.is_read_only(),
        removable: disk.is_removable(),
    })
}

/// The nearest existing folder of `path`, without links.
fn existing(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    path.ancestors().find_map(|folder| std::fs::canonicalize(folder).ok()).map(|path| plain(&path))
}

/// Windows' canonical paths begin with `\\?\`, its mount points do not.
fn plain(path: &Path) -> PathBuf {
    match path.to_str().and_then(|text| text.strip_prefix(r"\\?\")) {
        Some(rest) if !rest.starts_with("UNC") => PathBuf::from(rest),
        _ => path.to_owned(),
    }
}

/// The item whose mount point is the longest beginning of `path`.
fn holder<'a, T>(path: &Path, items: &'a [T], mount_point: impl Fn(&T) -> &Path) -> Option<&'a T> {
    // Of equal mount points the last one covers the others.
    items
        .iter()
        .filter(|item| path.starts_with(mount_point(item)))
        .max_by_key(|item| mount_point(item).components().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_mount_point_holds_a_path() {
        let mounts = ["/", "/home", "/home/me/models", "/hom"].map(PathBuf::from);
        let find = |path: &str| holder(Path::new(path), &mounts, |m| m.as_path()).unwrap().to_str().unwrap().to_owned();
        assert_eq!(find("/home/me/models/a.gguf"), "/home/me/models");
        assert_eq!(find("/home/me/modelsX"), "/home");
        assert_eq!(find("/homer"), "/");
        assert!(holder(Path::new("relative"), &mounts, |m| m.as_path()).is_none());
    }

    #[test]
    fn windows_prefixes_are_dropped() {
        assert_eq!(plain(Path::new(r"\\?\C:\models")), Path::new(r"C:\models"));
        assert_eq!(plain(Path::new(r"\\?\UNC\server\share")), Path::new(r"\\?\UNC\server\share"));
        assert_eq!(plain(Path::new("/home")), Path::new("/home"));
    }

    #[test]
    fn a_path_that_does_not_exist_yet_has_the_disk_of_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let here = disk_of(folder.path());
        let later = disk_of(&folder.path().join("not/there/yet"));
        assert_eq!(here.map(|d| d.mount_point), later.map(|d| d.mount_point));
    }
}
