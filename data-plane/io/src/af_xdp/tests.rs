//! AF_XDP against the sockets, in network namespaces of their own.

use crate::xdp::Mode;
use crate::xdp::tests::differential::{Path, compare_by, plain};
use crate::xdp::tests::world::{World, missing, run, skip};

#[test]
fn af_xdp_and_the_sockets_are_the_same() {
    if let Some(why) = missing() {
        return skip("af_xdp_and_the_sockets_are_the_same", &why);
    }
    let world = World::new(1);
    let streams = plain(&world);
    compare_by(Path::AfXdp, &world, &streams, &["p0"], Mode::Native);
}

#[test]
fn af_xdp_behind_generic_mode_is_the_same() {
    if let Some(why) = missing() {
        return skip("af_xdp_behind_generic_mode_is_the_same", &why);
    }
    let world = World::new(1);
    let streams = plain(&world);
    run(&format!("ip netns exec {} ethtool -K p0 gro off", world.peer));
    compare_by(Path::AfXdp, &world, &streams, &["p0"], Mode::Generic);
}
