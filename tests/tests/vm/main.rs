//! The image as a virtual machine: a real kernel, a real boot, memory that ends, a disk that is full, a clock that is wrong.
//!
//! First the [`boot`]: how soon the agent verifies, and that it holds nobody up. Then a whole life in 256 MiB: [`life`].
//! Then what only that kernel has: fs-verity ([`measured`]) and dm-verity ([`sealed`]).
#![forbid(unsafe_code)]

mod boot;
mod life;
mod measured;
mod sealed;
mod world;
