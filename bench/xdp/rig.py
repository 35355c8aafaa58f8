"""What the measurements of the XDP path share: bpf(2), frames, and the maps of the relay."""
import ctypes, os, platform, socket, struct, subprocess, sys

HERE = os.path.dirname(os.path.abspath(__file__))
RELAY = os.path.join(HERE, "../../data-plane/io/bpf/relay.o")
LIBC = ctypes.CDLL(None, use_errno=True)
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


def frame(source, target, sender, receiver):
    """An RTP packet of 20 ms G.711; the addresses of the link layer, then those of IP."""
    rtp = struct.pack(">BBHII", 0x80, 0, 0, 0, SSRC) + b"\x5a" * 160
    addresses = socket.inet_aton(sender) + socket.inet_aton(receiver)
    # The source changes port and number of each frame, not its checksum: nobody looks at it here, and
    # rewriting costs the same.
    udp = struct.pack(">HHHH", 4000, 20000, 8 + len(rtp), 0x1234)
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp) + len(rtp), 0, 0x4000, 64, 17, 0) + addresses
    ip = ip[:10] + struct.pack("<H", checksum(ip)) + ip[12:]
    return target + source + b"\x08\x00" + ip + udp + rtp


PLACES = 65536
FLOW_BYTES = 192


def place(address, port):
    """place_of() of data-plane/io/bpf/relay.c"""
    word = struct.unpack("<I", socket.inet_aton(address))[0]
    return ((word * 0x9E3779B1 & 0xFFFFFFFF) >> 16) + port & PLACES - 1


def flow(sender, local, out, receiver, mac, out_macs, interface):
    """struct flow of data-plane/io/bpf/relay.c: four addresses with their ports, the hardware address
    that packets arrive at, those of the frame that leaves (target, source), and its interface."""
    tos, ttl, generation = 0, 64, 1
    address = lambda end: socket.inet_aton(end[0])
    arrives, leaves = address(sender) + address(local), address(out) + address(receiver)
    total, total_out = fold(words(arrives)), fold(words(leaves))
    ports = lambda a, b: socket.htons(a[1]) + socket.htons(b[1])
    old, new = fold(total + ports(sender, local)), fold(total_out + ports(out, receiver))
    delta = fold((~old & 0xFFFF) + new)
    header = fold(total_out + words(struct.pack(">BBHBB", 0x45, tos, 0x4000, ttl, 17)))
    octets = struct.pack("<II", 0, 0) + arrives + struct.pack(">HHI", sender[1], local[1], SSRC)
    octets += mac + struct.pack(">H", 0) + struct.pack("BBBB", 4, 1, 5, 0) + b"\xff\xff" + struct.pack("<H", 0)
    octets += struct.pack("<II", generation, (8000 << 32) // 10**9)
    octets += struct.pack("<HHHHI", total, total_out, delta, 1500, interface) + struct.pack(">HBB", 0, tos, ttl)
    assert len(octets) == 64
    octets += leaves + struct.pack(">HH", out[1], receiver[1]) + struct.pack("<HH", header, 0) + out_macs
    return octets.ljust(FLOW_BYTES, b"\0")


def compile_programs(scratch):
    """programs.c as an object"""
    programs = os.path.join(scratch, "programs.o")
    include = f"-I/usr/include/{platform.machine()}-linux-gnu"
    run(f"clang-14 -O2 -g -Wall -Werror -target bpf -mcpu=v3 {include} -c {HERE}/programs.c -o {programs}")
    return programs


def machine():
    """What every result says of where it comes from."""
    return {
        "cpu": next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if "model name" in line),
        "kernel": platform.release(), "commit": commit(), "command": " ".join(sys.argv),
    }


def alone(core):
    """This process, and the softirqs that it raises, on one core, before all that is not pinned there:
    what else the machine does is not to be measured."""
    os.sched_setaffinity(0, {core})
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


def attach(namespace, device, path, original):
    """Attaches a pinned program to a device in its driver, or none."""
    enter(namespace)
    run(f"ip link set dev {device} xdpdrv off")
    if path:
        run(f"ip link set dev {device} xdpdrv pinned {path}")
    LIBC.setns(original, 0x40000000)


def fire(program, sent_frame, interface, packets, batch):
    """Runs a program on so many live frames, as if they had come to an interface of this namespace."""
    data = ctypes.create_string_buffer(sent_frame, len(sent_frame))
    context = struct.pack("<IIIIII", 0, len(sent_frame), 0, interface, 0, 0)
    context = ctypes.create_string_buffer(context, len(context))
    bpf(10, struct.pack("<IIIIQQIIIIQQIIII", program, 0, len(sent_frame), 0, ctypes.addressof(data), 0, packets, 0,
                        24, 0, ctypes.addressof(context), 0, 2, 0, batch, 0))


def commit():
    try:
        return run(f"git -C {HERE} rev-parse --short HEAD").strip()
    except (subprocess.CalledProcessError, FileNotFoundError):
        return "unknown"
