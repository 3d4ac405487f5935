//! What the operating systems do differently. Advice is advice: where it is refused, nothing is lost but time.

use std::fs::File;
use std::io;
use std::ops::Range;

use memmap2::{Mmap, MmapMut};

use crate::Pattern;

#[cfg(unix)]
pub(crate) use unix::*;
#[cfg(windows)]
pub(crate) use windows::*;

#[cfg(unix)]
mod unix {
    use memmap2::{Advice, UncheckedAdvice};

    use super::*;

    /// Linux cuts a request short, silently, at what the disk takes in one command (measured: 8 MiB of 2 GiB were read),
    /// but never below its readahead window of 128 KiB. So this is asked piece by piece.
    const READAHEAD: usize = 128 << 10;

    pub(crate) fn will_need(map: &Mmap, range: Range<usize>) {
        for start in range.clone().step_by(READAHEAD) {
            let len = READAHEAD.min(range.end - start);
            if map.advise_range(Advice::WillNeed, start, len).is_err() {
                return;
            }
        }
    }

    /// Reads a range in and puts its pages where the process finds them; returns when they are there.
    pub(crate) fn read_in(map: &Mmap, range: Range<usize>) {
        #[cfg(target_os = "linux")]
        if map.advise_range(Advice::PopulateRead, range.start, range.len()).is_ok() {
            return;
        }
        // Before Linux 5.14, or the file is damaged: whoever needs the bytes finds that out.
        will_need(map, range);
    }

    pub(crate) fn advise(map: &Mmap, range: Range<usize>, pattern: Pattern) {
        let advice = match pattern {
            Pattern::Normal => Advice::Normal,
            Pattern::Sequential => Advice::Sequential,
            Pattern::Random => Advice::Random,
            Pattern::Resident => Advice::Normal,
        };
        let _ = map.advise_range(advice, range.start, range.len());
        // Linux reads large pages for large pages' sake, whatever else it was told.
        #[cfg(target_os = "linux")]
        if matches!(pattern, Pattern::Resident | Pattern::Random) {
            let pages = if pattern == Pattern::Resident { Advice::HugePage } else { Advice::NoHugePage };
            let _ = map.advise_range(pages, range.start, range.len());
        }
    }

    /// `map` must be a mapping of a file.
    pub(crate) fn dont_need(map: &Mmap, range: Range<usize>) {
        let pages = whole_pages(range);
        if !pages.is_empty() {
            // SAFETY: on a read-only mapping of a file, MADV_DONTNEED loses nothing: the next access reads the file's
            // bytes again.
            let _ = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, pages.start, pages.len()) };
        }
    }

    /// Takes a range out of the process and out of the system's cache. `map` must be a mapping of the whole of `file`.
    pub(crate) fn evict(map: &Mmap, file: &File, range: Range<usize>) {
        // The system keeps what is mapped, so this comes first.
        dont_need(map, range.clone());
        #[cfg(target_os = "linux")]
        {
            use std::os::fd::AsRawFd;
            let pages = whole_pages(range);
            if !pages.is_empty() {
                // SAFETY: no pointers are passed, and the file is open.
                unsafe {
                    libc::posix_fadvise(
                        file.as_raw_fd(),
                        pages.start as libc::off_t,
                        pages.len() as libc::off_t,
                        libc::POSIX_FADV_DONTNEED,
                    )
                };
            }
        }
        #[cfg(not(target_os = "linux"))]
        let _ = file;
    }

    pub(crate) fn prefer_large_pages(memory: &MmapMut) {
        #[cfg(target_os = "linux")]
        let _ = memory.advise(Advice::HugePage);
        #[cfg(not(target_os = "linux"))]
        let _ = memory;
    }

    pub(crate) fn lock(map: &Mmap) -> io::Result<()> {
        map.lock()
    }

    /// RLIMIT_MEMLOCK in bytes; `None` if unlimited or unknown.
    pub(crate) fn lock_limit() -> Option<u64> {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `limit` is a valid place for the result.
        let status = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) };
        (status == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
    }

    /// The pages that lie within a range: the neighbours' bytes on its first and last page are still needed.
    fn whole_pages(range: Range<usize>) -> Range<usize> {
        let page = page_size();
        range.start.next_multiple_of(page)..range.end - range.end % page
    }

    fn page_size() -> usize {
        // SAFETY: no pointers are passed. The page size is a positive number on every system.
        unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn resident(map: &Mmap) -> Option<u64> {
        let page = page_size();
        // One byte per page, in pieces, so that no large buffer is needed.
        const PAGES: usize = 1 << 16;
        let mut flags = vec![0u8; PAGES.min(map.len().div_ceil(page))];
        let mut resident = 0u64;
        for start in (0..map.len()).step_by(PAGES * page) {
            let len = (map.len() - start).min(PAGES * page);
            // SAFETY: the range lies within the mapping and begins at a page; `flags` has a byte for each of its pages.
            let status = unsafe { libc::mincore(map.as_ptr().add(start) as *mut _, len, flags.as_mut_ptr()) };
            if status != 0 {
                return None;
            }
            let pages = flags[..len.div_ceil(page)].iter().filter(|&&flag| flag & 1 == 1).count();
            resident += (pages * page) as u64;
        }
        Some(resident.min(map.len() as u64))
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn resident(_: &Mmap) -> Option<u64> {
        None
    }
}

#[cfg(windows)]
mod windows {
    use windows_sys::Win32::System::Memory::{
        PrefetchVirtualMemory, VirtualLock, VirtualUnlock, WIN32_MEMORY_RANGE_ENTRY,
    };
    use windows_sys::Win32::System::Threading::{
        GetCurrentProcess, GetProcessWorkingSetSize, SetProcessWorkingSetSize,
    };

    use super::*;

    pub(crate) fn will_need(map: &Mmap, range: Range<usize>) {
        let Some(bytes) = map.get(range) else { return };
        let entry = WIN32_MEMORY_RANGE_ENTRY { VirtualAddress: bytes.as_ptr() as *mut _, NumberOfBytes: bytes.len() };
        // SAFETY: `entry` describes a range within a living mapping. Prefetching changes no contents.
        unsafe { PrefetchVirtualMemory(GetCurrentProcess(), 1, &entry, 0) };
    }

    /// Reads a range in; its pages are put where the process finds them when it touches them.
    pub(crate) fn read_in(map: &Mmap, range: Range<usize>) {
        will_need(map, range);
    }

    /// Windows takes no such advice for a mapping.
    pub(crate) fn advise(_: &Mmap, _: Range<usize>, _: Pattern) {}

    /// Windows trims the working set by itself.
    pub(crate) fn dont_need(_: &Mmap, _: Range<usize>) {}

    /// Takes a range out of the working set. Its pages go to the standby list, from which the system takes memory before
    /// it takes anything out of working sets. Unlocking pages that are not locked does that and answers with an error:
    /// <https://learn.microsoft.com/windows/win32/api/memoryapi/nf-memoryapi-virtualunlock>
    pub(crate) fn evict(map: &Mmap, _: &File, range: Range<usize>) {
        const PAGE: usize = 4096;
        let (start, end) = (range.start.next_multiple_of(PAGE), range.end - range.end % PAGE);
        if let Some(pages) = map.get(start..end).filter(|pages| !pages.is_empty()) {
            // SAFETY: the range is a part of a living mapping; its contents do not change.
            unsafe { VirtualUnlock(pages.as_ptr() as *const _, pages.len()) };
        }
    }

    /// Large pages need a privilege that users do not have.
    pub(crate) fn prefer_large_pages(_: &MmapMut) {}

    pub(crate) fn lock(map: &Mmap) -> io::Result<()> {
        // A process may lock a little less than the minimum of its working set, so that is raised first.
        const MARGIN: usize = 16 << 20;
        let (mut least, mut most) = (0usize, 0usize);
        // SAFETY: the pointers are valid places for the results; the range locked is a living mapping.
        unsafe {
            let process = GetCurrentProcess();
            if GetProcessWorkingSetSize(process, &mut least, &mut most) == 0 {
                return Err(io::Error::last_os_error());
            }
            let raise = map.len().saturating_add(MARGIN);
            if SetProcessWorkingSetSize(process, least.saturating_add(raise), most.saturating_add(raise)) == 0
                || VirtualLock(map.as_ptr() as *const _, map.len()) == 0
            {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }

    /// The limit is the working set, which [`lock`] raises itself.
    pub(crate) fn lock_limit() -> Option<u64> {
        None
    }

    pub(crate) fn resident(_: &Mmap) -> Option<u64> {
        None
    }
}
