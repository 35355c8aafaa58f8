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
import argparse, atexit, ctypes, json, os, platform, socket, statistics, struct, subprocess
import sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
RELAY = os.path.join(HERE, "../../data-plane/io/bpf/relay.o")
P, D = f"rvl-xdp-bench-p-{os.getpid()}", f"rvl-xdp-bench-d-{os.getpid()}"
LIBC = ctypes.CDLL(None, use_errno=True)
PEER, MACHINE = "10.94.6.2", "10.94.6.1"
SSRC = 0x11223344


def run(line, **more):
    return subprocess.run(line.split(), check=True, capture_output=True, text=True, **more).stdout


def bpf(command, attr):
    buffer = ctypes.create_string_buffer(attr, len(attr))
    result = LIBC.syscall(321, command, buffer, len(attr))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result, buffer.raw


def get(path):
    name = ctypes.create_string_buffer(path.encode())
    return bpf(7, struct.pack("QII", ctypes.addressof(name), 0, 0))[0]


def update(fd, key, value, flags=0):
    key, value = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(value, len(value))
    bpf(2, struct.pack("IIQQQ", fd, 0, ctypes.addressof(key), ctypes.addressof(value), flags))


def lookup(fd, key, size, flags=0):
    key, value = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(size)
    bpf(1, struct.pack("IIQQQ", fd, 0, ctypes.addressof(key), ctypes.addressof(value), flags))
    return value.raw


def possible_cpus():
    text = open("/sys/devices/system/cpu/possible").read().strip()
    return int(text.split("-")[-1].split(",")[-1]) + 1


def enter(name):
    with open(f"/run/netns/{name}") as namespace:
        if LIBC.setns(namespace.fileno(), 0x40000000) != 0:
            raise OSError(ctypes.get_errno(), "setns")


def mac(namespace, device):
    text = run(f"ip -n {namespace} -o link show {device}")
    return bytes.fromhex(text.split("link/ether ")[1].split()[0].replace(":", ""))


def index(namespace, device):
    return int(run(f"ip -n {namespace} -o link show {device}").split(":")[0])


def fold(value):
    while value > 0xFFFF:
        value = (value & 0xFFFF) + (value >> 16)
    return value


def words(octets):
    return sum(struct.unpack("<%dH" % (len(octets) // 2), octets))


def checksum(octets):
    return ~fold(words(octets + b"\0" * (len(octets) % 2))) & 0xFFFF


def frame(source, target):
    rtp = struct.pack(">BBHII", 0x80, 0, 0, 0, SSRC) + b"\x5a" * 160
    addresses = socket.inet_aton(PEER) + socket.inet_aton(MACHINE)
    # The source changes port and number of each frame, not its checksum: nobody looks at it here, and
    # rewriting costs the same.
    udp = struct.pack(">HHHH", 4000, 20000, 8 + len(rtp), 0x1234)
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp) + len(rtp), 0, 0x4000, 64, 17, 0) + addresses
    ip = ip[:10] + struct.pack("<H", checksum(ip)) + ip[12:]
    return target + source + b"\x08\x00" + ip + udp + rtp


def flow(generation, stream, here, peer, interface):
    """struct flow of data-plane/io/bpf/relay.c"""
    address = lambda text: socket.inet_aton(text) + b"\0" * 12
    local, source = 20000 + 2 * stream, 4000
    out, target = local + 1, 5000
    total = words(socket.inet_aton(PEER) + socket.inet_aton(MACHINE))
    ports = lambda a, b: socket.htons(a) + socket.htons(b)
    old, new = fold(total + ports(source, local)), fold(total + ports(out, target))
    delta = fold((~old & 0xFFFF) + new)
    rule = address(PEER) + address(MACHINE) + address(PEER) + struct.pack(">I", SSRC)
    rule += struct.pack("<IIII", interface, (8000 << 32) // 10**9, total, total)
    rule += struct.pack(">HHHHH", source, out, target, 0, 0) + struct.pack("<HHH", delta, 1500, 0)
    rule += here + peer + here + struct.pack("BBBB", 1, 5, 0, 64) + b"\xff\xff" + b"\0" * 4
    assert len(rule) == 112
    return struct.pack("<II", 0, generation) + rule


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--streams", type=int, default=2000)
    options.add_argument("--packets", type=int, default=2_000_000)
    options.add_argument("--rounds", type=int, default=6)
    options.add_argument("--core", type=int, default=os.cpu_count() - 1)
    options.add_argument("--json")
    options = options.parse_args()
    os.sched_setaffinity(0, {options.core})

    scratch = tempfile.mkdtemp()
    original = os.open("/proc/self/ns/net", os.O_RDONLY)
    pins = f"/sys/fs/bpf/rvl-xdp-bench-{os.getpid()}"

    def clean():
        subprocess.run(["rm", "-rf", pins, scratch])
        for name in (P, D):
            subprocess.run(["ip", "netns", "del", name], capture_output=True)

    atexit.register(clean)
    programs = os.path.join(scratch, "programs.o")
    include = f"-I/usr/include/{platform.machine()}-linux-gnu"
    run(f"clang-14 -O2 -g -Wall -Werror -target bpf -mcpu=v3 {include} -c {HERE}/programs.c -o {programs}")
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
    machine = index(D, "d0")
    enter(D)
    for folder in ("maps", "relay-maps"):
        interfaces = get(f"{pins}/{folder}/interfaces")
        update(interfaces, struct.pack("<I", machine), struct.pack("<I", machine))
    for stream in range(slots):
        slot = struct.pack("<I", stream + 1)
        key = socket.inet_aton(MACHINE) + b"\0" * 12 + struct.pack(">H", 20000 + 2 * stream) + struct.pack("<H", 4)
        update(maps["ports"], key, slot)
        update(maps["flows"], slot, flow(1, stream, here, peer, machine), 4)

    LIBC.setns(original, 0x40000000)

    def attach(namespace, device, path):
        enter(namespace)
        run(f"ip link set dev {device} xdpdrv off")
        if path:
            run(f"ip link set dev {device} xdpdrv pinned {path}")
        LIBC.setns(original, 0x40000000)

    cpus = possible_cpus()

    def counter(which):
        raw = lookup(maps["counters"], struct.pack("<I", which), 8 * cpus)
        return sum(struct.unpack(f"<{cpus}Q", raw))

    source = get(f"{pins}/bench/source")
    sent_frame = frame(peer, here)
    data = ctypes.create_string_buffer(sent_frame, len(sent_frame))
    context = struct.pack("<IIIIII", 0, len(sent_frame), 0, index(P, "p0"), 0, 0)
    context = ctypes.create_string_buffer(context, len(context))

    def fire(packets):
        attr = struct.pack("<IIIIQQIIIIQQIIII", source, 0, len(sent_frame), 0, ctypes.addressof(data), 0,
                           packets, 0, 24, 0, ctypes.addressof(context), 0, 2, 0, 64, 0)
        bpf(10, attr)

    def measure(name, path, fib=0):
        attach(D, "d0", path)
        update(maps["settings"], struct.pack("<I", 0), struct.pack("<II", slots, fib) + sent_frame[:42] + b"\0\0")
        enter(P)
        fire(20_000)
        time.sleep(0.05)
        sent, came = counter(0), counter(1)
        began = time.perf_counter()
        softirq = cpu_times(options.core)
        fire(options.packets)
        lasted = time.perf_counter() - began
        softirq = cpu_times(options.core) - softirq
        time.sleep(0.05)
        sent, came = counter(0) - sent, counter(1) - came
        LIBC.setns(original, 0x40000000)
        return {"program": name, "pps": sent / lasted, "ns": lasted / sent * 1e9, "cpu_ns": softirq / sent * 1e9,
                "sent": sent, "lost": sent - came}

    attach(P, "p0", f"{pins}/bench/sink")
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
            "cpu_ns_per_packet": round(statistics.median(row["cpu_ns"] for row in rows), 1),
            "sent": sum(row["sent"] for row in rows),
            "lost": 0 if name == "drop" else sum(row["lost"] for row in rows),
        }
    run_ns = program_times(pins, measure, slots)
    report = {
        "what": "XDP relay against a bare rewrite-and-redirect program, one core, veth, native mode",
        "cpu": next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if "model name" in line),
        "kernel": platform.release(), "commit": commit(), "command": " ".join(sys.argv),
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


def commit():
    try:
        return run(f"git -C {HERE} rev-parse --short HEAD").strip()
    except (subprocess.CalledProcessError, FileNotFoundError):
        return "unknown"


main()
