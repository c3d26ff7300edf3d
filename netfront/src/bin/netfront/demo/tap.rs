//! The kernel's own TCP/IP across the driver.

use crate::args::Demo;
use crate::failure::Failure;

pub fn demo(_args: &Demo) -> Result<(), Failure> {
    Err(Failure::NotHere("".into()))
}
