#!/usr/bin/env python3
"""Latency that the XDP path adds, against plain IP forwarding of the kernel, packet by packet.

Three network namespaces in a row: sender, relay, receiver, and two veths. A program at the sender's end
sends one packet each period with the time in it (BPF_PROG_RUN, live frames, one at a time), a program at
the receiver's end takes the time again, so that what is measured is the way between the two and nobody's
wake-up. In between, alternating within the run: the kernel's forwarding, the relay, a bare
rewrite-and-redirect program; and `wire`, one veth from sender to receiver with nothing in between, which
is what the others have besides. All on one core. Loss is what the receiver does not see.

Needs root, clang-14, libbpf-dev, bpftool, iproute2, ethtool.

    bench/xdp/latency.py [--rate 50000] [--streams 500] [--packets 100000] [--rounds 8] [--core 1] [--json FILE]
"""
import argparse, atexit, json, os, struct, subprocess, tempfile, time

from rig import *

S, R, T = (f"rvl-xdp-late-{end}-{os.getpid()}" for end in "srt")
SENDER, HERE_IN, HERE_OUT, RECEIVER = "10.94.7.2", "10.94.7.1", "10.94.8.1", "10.94.8.2"
BINS, BIN_NS = 16384, 16
PIN = f"/sys/fs/bpf/rvl-xdp-late-{os.getpid()}"


def quantile(bins, share):
    """Upper end of the bin that the packet of this rank is in, in microseconds; None: beyond all bins."""
    rank, seen = share * sum(bins), 0
    for bin_, packets in enumerate(bins):
        seen += packets
        if seen >= rank:
            return round((bin_ + 1) * BIN_NS / 1000, 2) if bin_ + 1 < BINS else None


def wires():
    """The namespaces, and the hardware addresses of all ends."""
    for name in (S, R, T):
        run(f"ip netns add {name}")
    for (one, left), (other, right) in (((S, "s0"), (R, "r0")), ((R, "r1"), (T, "t0")), ((S, "s1"), (T, "t1"))):
        run(f"ip link add {left} netns {one} type veth peer name {right} netns {other}")
        for name, device in ((one, left), (other, right)):
            run(f"ip -n {name} link set {device} up")
            run(f"ip netns exec {name} ethtool -K {device} gro on")
    for name, device, address in ((S, "s0", SENDER), (R, "r0", HERE_IN), (R, "r1", HERE_OUT), (T, "t0", RECEIVER)):
        run(f"ip -n {name} addr add {address}/24 dev {device}")
    run(f"ip netns exec {R} sysctl -qw net.ipv4.ip_forward=1")
    macs = {device: mac(name, device) for name, device in ((S, "s0"), (R, "r0"), (R, "r1"), (T, "t0"))}
    colons = ":".join(f"{octet:02x}" for octet in macs["t0"])
    run(f"ip -n {R} neigh replace {RECEIVER} lladdr {colons} dev r1 nud permanent")
    return macs


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--rate", type=int, default=50_000)
    options.add_argument("--streams", type=int, default=500)
    options.add_argument("--packets", type=int, default=100_000)
    options.add_argument("--rounds", type=int, default=8)
    options.add_argument("--core", type=int, default=os.cpu_count() - 1)
    options.add_argument("--json")
    options = options.parse_args()
    scratch = tempfile.mkdtemp()

    def clean():
        subprocess.run(["rm", "-rf", PIN, scratch])
        for name in (S, R, T):
            subprocess.run(["ip", "netns", "del", name], capture_output=True)

    atexit.register(clean)
    original = os.open("/proc/self/ns/net", os.O_RDONLY)
    programs = compile_programs(scratch)
    macs = wires()
    for name, object_ in (("bench", programs), ("relay", RELAY)):
        os.makedirs(f"{PIN}/{name}-maps")
        run(f"bpftool prog loadall {object_} {PIN}/{name} type xdp pinmaps {PIN}/{name}-maps")
    maps = {name: get(f"{PIN}/bench-maps/{name}") for name in ("settings", "counters", "latencies")}
    maps |= {name: get(f"{PIN}/relay-maps/{name}") for name in ("ports", "flows")}
    slots = json.loads(run(f"bpftool -j map show pinned {PIN}/relay-maps/flows"))["max_entries"]
    assert options.streams < slots, f"the object has room for {slots - 1} streams by itself"
    out = index(R, "r1")
    enter(R)
    for folder in ("bench-maps", "relay-maps"):
        update(get(f"{PIN}/{folder}/interfaces"), struct.pack("<I", out), struct.pack("<I", out))
    LIBC.setns(original, 0x40000000)
    for stream in range(options.streams):
        slot, port = struct.pack("<I", stream + 1), 20000 + 2 * stream
        ends = (SENDER, 4000), (HERE_IN, port), (HERE_OUT, port), (RECEIVER, 5000)
        update(maps["flows"], slot, flow(*ends, macs["r0"], macs["t0"] + macs["r1"], out))
        update(maps["ports"], struct.pack("<I", place(HERE_IN, port)), slot)
    for device in ("t0", "t1"):
        attach(T, device, f"{PIN}/bench/clock_sink", original)
    pacer = get(f"{PIN}/bench/pacer")
    cpus = possible_cpus()
    period = 10**9 // options.rate
    devices = {name: index(S, name) for name in ("s0", "s1")}
    kinds = [  # name, program at r0, sending device, to whom
        ("kernel", None, "s0", RECEIVER), ("relay", f"{PIN}/relay/relay", "s0", HERE_IN),
        ("bare", f"{PIN}/bench/bare", "s0", HERE_IN), ("wire", None, "s1", RECEIVER)]

    def counter(which):
        return sum(struct.unpack(f"<{cpus}Q", lookup(maps["counters"], struct.pack("<I", which), 8 * cpus)))

    def latencies():
        return [struct.unpack("<Q", lookup(maps["latencies"], struct.pack("<I", bin_), 8))[0] for bin_ in range(BINS)]

    def measure(path, device, receiver):
        attach(R, "r0", path, original)
        sent_frame = frame(macs["s0"], macs["r0"], SENDER, receiver)
        settings = struct.pack("<II", options.streams, 0) + sent_frame[:42] + struct.pack("<HIQ", 0, out, period)
        update(maps["settings"], struct.pack("<I", 0), settings)
        enter(S)
        fire(pacer, sent_frame, devices[device], options.rate // 10, 1)
        time.sleep(0.05)
        sent, came, before = counter(0), counter(1), latencies()
        began = time.perf_counter()
        fire(pacer, sent_frame, devices[device], options.packets, 1)
        lasted = time.perf_counter() - began
        time.sleep(0.05)
        sent, came = counter(0) - sent, counter(1) - came
        after = latencies()
        LIBC.setns(original, 0x40000000)
        return {"rate": sent / lasted, "sent": sent, "lost": sent - came, "bins": [a - b for a, b in zip(after, before)]}

    alone(options.core)
    results = {name: [] for name, *_ in kinds}
    for round_ in range(options.rounds + 1):
        for name, path, device, receiver in kinds:
            result = measure(path, device, receiver)
            # The first round warms up.
            if round_:
                results[name].append(result)
    summary = {}
    for name, rows in results.items():
        bins = [sum(column) for column in zip(*(row["bins"] for row in rows))]
        summary[name] = {
            "sent": sum(row["sent"] for row in rows), "lost": sum(row["lost"] for row in rows),
            "rate": round(sum(row["rate"] for row in rows) / len(rows)),
        } | {f"p{label}_us": quantile(bins, share) for label, share in (("50", 0.5), ("99", 0.99), ("99.9", 0.999))}
        summary[name]["p50_us_of_rounds"] = [quantile(row["bins"], 0.5) for row in rows]
        summary[name]["p99_us_of_rounds"] = [quantile(row["bins"], 0.99) for row in rows]
    ratio = lambda key: round(summary["relay"][key] / summary["kernel"][key], 3)
    report = {
        "what": "latency through the XDP relay against the kernel's IP forwarding, one core, veth, native mode",
        **machine(), "streams": options.streams, "packets_per_second": options.rate, "rounds": options.rounds,
        "bin_ns": BIN_NS, "ways": summary,
        "relay_to_kernel": {key: ratio(key) for key in ("p50_us", "p99_us", "p99.9_us") if summary["kernel"][key]},
    }
    text = json.dumps(report, indent=1)
    print(text)
    if options.json:
        with open(options.json, "w") as out_:
            out_.write(text + "\n")


main()
