#!/usr/bin/env python3
"""Packets per second and time per packet of the XDP path, against a bare rewrite-and-redirect program.

Two network namespaces and one veth. A source runs in the peers' end (BPF_PROG_RUN, live frames), the
program under test is attached natively at the other end, what it sends back is counted and dropped at
the peers' end. All of it runs on one core, so a packet's time is that of source, two crossings of the
veth, program and sink; programs alternate within the run, and `drop`, which sends nothing back, is
shown for scale. Loss is what the sink does not see.

Needs root, clang-14, libbpf-dev, bpftool, iproute2, ethtool.

    bench/xdp/run.py [--streams 2000] [--packets 2000000] [--rounds 6] [--core 1] [--json FILE]
"""
import argparse, atexit, json, os, statistics, struct, subprocess, sys, tempfile, time

from rig import *

P, D = f"rvl-xdp-bench-p-{os.getpid()}", f"rvl-xdp-bench-d-{os.getpid()}"
PEER, MACHINE = "10.94.6.2", "10.94.6.1"


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--streams", type=int, default=2000)
    options.add_argument("--packets", type=int, default=2_000_000)
    options.add_argument("--rounds", type=int, default=6)
    options.add_argument("--core", type=int, default=os.cpu_count() - 1)
    options.add_argument("--json")
    options = options.parse_args()
    alone(options.core)

    scratch = tempfile.mkdtemp()
    original = os.open("/proc/self/ns/net", os.O_RDONLY)
    pins = f"/sys/fs/bpf/rvl-xdp-bench-{os.getpid()}"

    def clean():
        subprocess.run(["rm", "-rf", pins, scratch])
        for name in (P, D):
            subprocess.run(["ip", "netns", "del", name], capture_output=True)

    atexit.register(clean)
    programs = compile_programs(scratch)
    for name in (P, D):
        run(f"ip netns add {name}")
    run(f"ip link add p0 netns {P} type veth peer name d0 netns {D}")
    run(f"ip -n {P} addr add {PEER}/24 dev p0")
    run(f"ip -n {D} addr add {MACHINE}/24 dev d0")
    for name, device in ((P, "p0"), (D, "d0")):
        run(f"ip -n {name} link set {device} up")
        run(f"ip netns exec {name} ethtool -K {device} gro on")
    run(f"ip netns exec {D} sysctl -qw net.ipv4.ip_forward=1")
    peer, here = mac(P, "p0"), mac(D, "d0")
    colons = ":".join(f"{octet:02x}" for octet in peer)
    run(f"ip -n {D} neigh replace {PEER} lladdr {colons} dev d0 nud permanent")
    os.makedirs(f"{pins}/maps")
    run(f"bpftool prog loadall {programs} {pins}/bench type xdp pinmaps {pins}/maps")
    os.makedirs(f"{pins}/relay-maps")
    run(f"bpftool prog loadall {RELAY} {pins}/relay type xdp pinmaps {pins}/relay-maps")

    maps = {name: get(f"{pins}/maps/{name}") for name in ("settings", "counters")}
    maps |= {name: get(f"{pins}/relay-maps/{name}") for name in ("ports", "flows", "counts")}
    slots = min(options.streams, int(json.loads(run(f"bpftool -j map show pinned {pins}/relay-maps/flows"))["max_entries"]) - 1)
    if slots < options.streams:
        print(f"streams: {slots}, as many as the object has room for by itself", file=sys.stderr)
    device = index(D, "d0")
    enter(D)
    for folder in ("maps", "relay-maps"):
        interfaces = get(f"{pins}/{folder}/interfaces")
        update(interfaces, struct.pack("<I", device), struct.pack("<I", device))
    for stream in range(slots):
        slot = struct.pack("<I", stream + 1)
        port = 20000 + 2 * stream
        ends = (PEER, 4000), (MACHINE, port), (MACHINE, port + 1), (PEER, 5000)
        update(maps["flows"], slot, flow(*ends, here, peer + here, device))
        update(maps["ports"], struct.pack("<I", place(MACHINE, port)), slot)

    LIBC.setns(original, 0x40000000)

    cpus = possible_cpus()

    def counter(which):
        raw = lookup(maps["counters"], struct.pack("<I", which), 8 * cpus)
        return sum(struct.unpack(f"<{cpus}Q", raw))

    source = get(f"{pins}/bench/source")
    sent_frame = frame(peer, here, PEER, MACHINE)
    peers = index(P, "p0")

    def measure(name, path, fib=0):
        attach(D, "d0", path, original)
        update(maps["settings"], struct.pack("<I", 0), struct.pack("<II", slots, fib) + sent_frame[:42] + bytes(14))
        enter(P)
        fire(source, sent_frame, peers, 20_000, 64)
        time.sleep(0.05)
        sent, came = counter(0), counter(1)
        began = time.perf_counter()
        softirq = cpu_times(options.core)
        fire(source, sent_frame, peers, options.packets, 64)
        lasted = time.perf_counter() - began
        softirq = cpu_times(options.core) - softirq
        time.sleep(0.05)
        sent, came = counter(0) - sent, counter(1) - came
        LIBC.setns(original, 0x40000000)
        return {"program": name, "pps": sent / lasted, "ns": lasted / sent * 1e9, "cpu_ns": softirq / sent * 1e9,
                "sent": sent, "lost": sent - came}

    attach(P, "p0", f"{pins}/bench/sink", original)
    kinds = [("drop", f"{pins}/bench/drop", 0), ("bare", f"{pins}/bench/bare", 0),
             ("relay", f"{pins}/relay/relay", 0), ("bare+fib", f"{pins}/bench/bare", 1)]
    results = {name: [] for name, _, _ in kinds}
    for round_ in range(options.rounds + 1):
        for name, path, fib in kinds:
            result = measure(name, path, fib)
            # The first round warms up.
            if round_:
                results[name].append(result)
    summary = {}
    for name, rows in results.items():
        pps = [row["pps"] for row in rows]
        summary[name] = {
            "pps_median": round(statistics.median(pps)), "pps_min": round(min(pps)), "pps_max": round(max(pps)),
            "ns_per_packet": round(statistics.median(row["ns"] for row in rows), 1),
            "ns_per_packet_least": round(min(row["ns"] for row in rows), 1),
            "cpu_ns_per_packet": round(statistics.median(row["cpu_ns"] for row in rows), 1),
            "sent": sum(row["sent"] for row in rows),
            "lost": 0 if name == "drop" else sum(row["lost"] for row in rows),
        }
    run_ns = program_times(pins, measure, slots)
    report = {
        "what": "XDP relay against a bare rewrite-and-redirect program, one core, veth, native mode",
        **machine(),
        "streams": slots, "frame_bytes": len(sent_frame), "rounds": options.rounds,
        "programs": summary,
        "program_run_ns": run_ns,
        "relay_to_bare_whole_packet": round(summary["relay"]["ns_per_packet"] / summary["bare"]["ns_per_packet"], 3),
    }
    text = json.dumps(report, indent=1)
    print(text)
    if options.json:
        with open(options.json, "w") as out:
            out.write(text + "\n")


def cpu_times(core):
    """Seconds that a core was not idle."""
    for line in open("/proc/stat"):
        if line.startswith(f"cpu{core} "):
            ticks = [int(word) for word in line.split()[1:]]
            return (sum(ticks[:8]) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
    return 0.0


def program_times(pins, measure, _slots):
    """Mean run time of each program alone, as the kernel counts it (kernel.bpf_stats_enabled)."""
    key = "/proc/sys/kernel/bpf_stats_enabled"
    before = open(key).read()
    times = {}
    try:
        with open(key, "w") as out:
            out.write("1")
        for name, path, fib in [("bare", f"{pins}/bench/bare", 0), ("relay", f"{pins}/relay/relay", 0),
                                ("bare+fib", f"{pins}/bench/bare", 1)]:
            first = json.loads(run(f"bpftool -j prog show pinned {path}"))
            measure(name, path, fib)
            last = json.loads(run(f"bpftool -j prog show pinned {path}"))
            runs = last.get("run_cnt", 0) - first.get("run_cnt", 0)
            times[name] = round((last.get("run_time_ns", 0) - first.get("run_time_ns", 0)) / max(runs, 1), 1)
    finally:
        with open(key, "w") as out:
            out.write(before)
    return times


main()
