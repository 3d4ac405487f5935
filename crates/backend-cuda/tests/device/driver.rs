//! What the tests stand on: their driver sees what is written beside a buffer.

use crate::common::driver::{State, TestDriver};
use crate::common::library::sanitizer;
use backend_cuda::Driver;
use std::panic::{AssertUnwindSafe, catch_unwind};

#[test]
fn what_is_written_beside_a_buffer_is_noticed() {
    if sanitizer().is_some() {
        return; // It sees that itself.
    }
    for (offset, noticed) in [(0, false), (60, false), (64, true), (316, true), (-4, true), (-256, true)] {
        let (mut driver, _) = TestDriver::new(State { exact: true, ..State::default() });
        let start = driver.allocate(64).unwrap();
        // SAFETY: there are 256 bytes more on both sides.
        unsafe { driver.upload(start.wrapping_add_signed(offset), &[0; 4]) }.unwrap();
        // SAFETY: just allocated.
        let released = catch_unwind(AssertUnwindSafe(|| unsafe { driver.release(start) }));
        assert_eq!(released.is_err(), noticed, "at {offset}");
    }
}
