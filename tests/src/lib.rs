//! What the tests of the whole house share: the seeded simulator and helpers that find the
//! repository. It holds no test of its own; those are in `tests/tests/`.
#![forbid(unsafe_code)]

pub mod netns;
pub mod product;
pub mod sim;
pub mod sipp;
pub mod tree;
pub mod wait;
