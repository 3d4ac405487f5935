//! What the system grants us of a GPU's memory. Windows pages video memory out to RAM when programs have more than it
//! grants, and says through DXGI how much that is; elsewhere the driver refuses what does not fit, and there is nothing to
//! ask.

/// A question to the system, where it has an answer.
pub(super) struct Grant(platform::Adapter);

/// Bytes in the GPU's own memory, granted and taken, and bytes of RAM that the GPU uses for us.
#[derive(Clone, Copy)]
pub(super) struct Granted {
    pub budget: u64,
    pub local: u64,
    pub ram: u64,
}

impl Grant {
    /// For the adapter of a device; `None` where nothing spills or nobody tells.
    pub fn of(device: cudarc::driver::sys::CUdevice) -> Option<Grant> {
        platform::Adapter::of(device).map(Grant)
    }

    pub fn now(&self) -> Option<Granted> {
        self.0.now()
    }
}

#[cfg(windows)]
mod platform {
    use super::Granted;
    use cudarc::driver::sys;
    use std::sync::{Mutex, PoisonError};
    use windows::Win32::Foundation::LUID;
    use windows::Win32::Graphics::Dxgi::{
        CreateDXGIFactory1, DXGI_MEMORY_SEGMENT_GROUP, DXGI_MEMORY_SEGMENT_GROUP_LOCAL,
        DXGI_MEMORY_SEGMENT_GROUP_NON_LOCAL, DXGI_QUERY_VIDEO_MEMORY_INFO, IDXGIAdapter3, IDXGIFactory4,
    };

    pub struct Adapter {
        /// One thread at a time asks.
        adapter: Mutex<IDXGIAdapter3>,
        /// The GPU's number within the adapter, which may have several.
        node: u32,
    }

    // SAFETY: DXGI's adapters belong to no apartment: any thread may call them, and the mutex lets one at a time.
    unsafe impl Send for Adapter {}
    // SAFETY: as above.
    unsafe impl Sync for Adapter {}

    impl Adapter {
        pub fn of(device: sys::CUdevice) -> Option<Adapter> {
            let (mut luid, mut nodes) = ([0u8; 8], 0);
            // SAFETY: the driver is initialised; the LUID has 8 bytes. Drivers that draw nothing (TCC) have none, and say so.
            let found = unsafe { sys::cuDeviceGetLuid(luid.as_mut_ptr().cast(), &mut nodes, device) };
            if found != sys::CUresult::CUDA_SUCCESS {
                return None;
            }
            let [low, high] = [&luid[..4], &luid[4..]].map(|half| half.try_into().unwrap_or([0; 4]));
            let luid = LUID { LowPart: u32::from_le_bytes(low), HighPart: i32::from_le_bytes(high) };
            Adapter::with(luid, if nodes == 0 { 0 } else { nodes.trailing_zeros() })
        }

        fn with(luid: LUID, node: u32) -> Option<Adapter> {
            // SAFETY: plain calls; what they give is counted by the wrapper.
            let adapter = unsafe {
                let factory: IDXGIFactory4 = CreateDXGIFactory1().ok()?;
                factory.EnumAdapterByLuid::<IDXGIAdapter3>(luid).ok()?
            };
            let adapter = Adapter { adapter: Mutex::new(adapter), node };
            // One that grants nothing at all does not mean what it says.
            adapter.now().filter(|granted| granted.budget > 0).map(|_| adapter)
        }

        pub fn now(&self) -> Option<Granted> {
            let local = self.ask(DXGI_MEMORY_SEGMENT_GROUP_LOCAL)?;
            let ram = self.ask(DXGI_MEMORY_SEGMENT_GROUP_NON_LOCAL)?;
            Some(Granted { budget: local.Budget, local: local.CurrentUsage, ram: ram.CurrentUsage })
        }

        fn ask(&self, group: DXGI_MEMORY_SEGMENT_GROUP) -> Option<DXGI_QUERY_VIDEO_MEMORY_INFO> {
            let mut info = DXGI_QUERY_VIDEO_MEMORY_INFO::default();
            let adapter = self.adapter.lock().unwrap_or_else(PoisonError::into_inner);
            // SAFETY: the pointer is to the struct that is asked for.
            unsafe { adapter.QueryVideoMemoryInfo(self.node, group, &mut info) }.ok()?;
            Some(info)
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        /// Whatever draws here (under Wine too) says what it grants; a LUID that nobody has is no adapter.
        #[test]
        fn adapters_say_what_they_grant() {
            // SAFETY: plain calls.
            let found = unsafe {
                let factory = CreateDXGIFactory1::<IDXGIFactory4>();
                let adapter = factory.and_then(|factory| factory.EnumAdapters1(0));
                adapter.and_then(|adapter| adapter.GetDesc1())
            };
            let described = match found {
                Ok(described) => described,
                Err(error) => return println!("nothing draws here: {error}"),
            };
            let adapter = Adapter::with(described.AdapterLuid, 0).expect("an adapter is found by its LUID");
            let granted = adapter.now().unwrap();
            println!("granted {}, taken {}, in RAM {}", granted.budget, granted.local, granted.ram);
            assert!(granted.budget > 0 && granted.local <= granted.budget);
            let LUID { LowPart, HighPart } = described.AdapterLuid;
            assert!(Adapter::with(LUID { LowPart: !LowPart, HighPart: !HighPart }, 0).is_none());
        }
    }
}

#[cfg(not(windows))]
mod platform {
    use super::Granted;

    pub struct Adapter;

    impl Adapter {
        pub fn of(_device: cudarc::driver::sys::CUdevice) -> Option<Adapter> {
            None
        }

        pub fn now(&self) -> Option<Granted> {
            None
        }
    }
}
