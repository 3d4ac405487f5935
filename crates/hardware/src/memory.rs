//! RAM and swap.

use serde::Serialize;
use sysinfo::System;

use crate::cgroup::{self, GroupMemory};

/// RAM and swap, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// RAM of the machine; 0 when the system does not tell.
    pub machine_total: u64,
    /// RAM that can be taken now, caches included that the system gives up; 0 when the system does not tell.
    pub machine_available: u64,
    pub swap_total: u64,
    pub swap_free: u64,
    /// The control group's limit, where there is one (Linux).
    pub group: Option<GroupMemory>,
}

impl Memory {
    /// RAM that this process may use in all.
    pub fn total(&self) -> u64 {
        self.group.map_or(self.machine_total, |group| group.limit.min(self.machine_total))
    }

    /// RAM that can be taken now.
    pub fn available(&self) -> u64 {
        self.group.map_or(self.machine_available, |group| group.available().min(self.machine_available))
    }
}

/// An empty view of the system; `None` where it is not supported.
pub(crate) fn system() -> Option<System> {
    System::new().ok()
}

pub(crate) fn probe(system: Option<&mut System>) -> Memory {
    let Some(system) = system else { return Memory::default() };
    system.refresh_memory();
    Memory {
        machine_total: system.total_memory(),
        machine_available: system.available_memory(),
        swap_total: system.total_swap(),
        swap_free: system.free_swap(),
        group: cgroup::probe(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_groups_limit_bounds_the_machines_memory() {
        const GIB: u64 = 1 << 30;
        let free = Memory { machine_total: 32 * GIB, machine_available: 20 * GIB, ..Memory::default() };
        assert_eq!((free.total(), free.available()), (32 * GIB, 20 * GIB));
        let group = |limit, used, reclaimable| Memory { group: Some(GroupMemory { limit, used, reclaimable }), ..free };
        let tight = group(8 * GIB, 5 * GIB, 2 * GIB);
        assert_eq!((tight.total(), tight.available()), (8 * GIB, 5 * GIB));
        // A limit above what the machine has left does not help.
        let wide = group(30 * GIB, GIB, 0);
        assert_eq!((wide.total(), wide.available()), (30 * GIB, 20 * GIB));
        // Use beyond the limit leaves nothing.
        assert_eq!(group(GIB, 2 * GIB, 0).available(), 0);
    }

    #[test]
    fn this_machine_has_memory() {
        let memory = probe(system().as_mut());
        assert!(memory.total() > 0 && memory.available() > 0 && memory.available() <= memory.total());
        assert!(memory.swap_free <= memory.swap_total);
    }
}
