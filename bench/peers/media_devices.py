"""The devices of bench/peers/media: each relays the media of a number of calls between the two
networks of the topology. Real calls for Ravelin (SIP) and rtpengine (its ng protocol); the bare loop
is told its ports by a file."""

import ctypes
import os
import re
import resource
import selectors
import signal
import socket
import subprocess
import time
from pathlib import Path

CLIENT_SIP, SERVER_SIP = "10.91.1.1", "10.91.2.1"
# Media addresses that no stack answers for: the load generator reads and writes whole frames.
CLIENT_RTP, SERVER_RTP = "10.91.1.2", "10.91.2.2"
DEVICE_CLIENT, DEVICE_SERVER = "10.91.1.254", "10.91.2.254"
FIRST_PORT = 20000
SIP_PORT = 5060
LIBC = ctypes.CDLL(None, use_errno=True)


def enter(path):
    with open(path) as file:
        if LIBC.setns(file.fileno(), 0x40000000) != 0:
            raise OSError(ctypes.get_errno(), f"setns {path}")


def socket_in(netns, address):
    """A UDP socket bound in a network namespace; it stays there when we leave."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        enter(f"/run/netns/{netns}")
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        made.bind(address)
    finally:
        enter(f"/proc/self/fd/{home}")
        os.close(home)
    return made


def prefer(pid):
    """Puts a thread, and what it starts, before everything else on its core: what other work the
    machine has may take what is left, and delays nothing. Device, its input path and the generator
    are treated alike."""
    os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(1))


def sdp(address, port):
    return (
        f"v=0\r\no=- 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n"
        f"m=audio {port} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n"
    )


def media_of(text):
    """Address and port of the first m-line."""
    address = re.search(r"^c=IN IP4 (\S+)", text, re.M).group(1)
    return address, int(re.search(r"^m=audio (\d+)", text, re.M).group(1))


class Device:
    """A process in the device's namespace. `calls` fills `pairs`: for each call the device's
    address towards the client and towards the server."""

    def __init__(self, name, command, topology, folder, core):
        self.name, self.topology, self.folder = name, topology, folder
        self.log = open(folder / f"{name}.log", "ab")
        full = ["ip", "netns", "exec", topology.device, "taskset", "-c", str(core), *command]
        self.process = subprocess.Popen(
            full,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            cwd=folder,
            preexec_fn=lambda: prefer(0),
        )

    def client_port(self, call):
        return FIRST_PORT + 2 * call

    server_port = client_port

    def tail(self):
        return (self.folder / f"{self.name}.log").read_text(errors="replace")[-2000:]

    def alive(self):
        if self.process.poll() is not None:
            raise SystemExit(f"{self.name} ended with {self.process.returncode}: {self.tail()}")

    def thread_ns(self):
        """CPU time of all threads, in user space and in the kernel."""
        return sum(
            int((task / "schedstat").read_text().split()[0])
            for task in Path("/proc", str(self.process.pid), "task").iterdir()
        )

    def end_calls(self):
        return None

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(5)
        self.log.close()
        # The kernel closes the sockets of an ended io_uring ring a moment later.
        time.sleep(1)


class Kernel:
    """No process: the device's kernel forwards as a router does. The floor of latency, since
    nothing looks at a port."""

    def __init__(self, topology, calls):
        self.topology = topology
        self.switch(1)
        self.pairs = [
            ((SERVER_RTP, self.server_port(call)), (CLIENT_RTP, self.client_port(call)))
            for call in range(calls)
        ]

    def client_port(self, call):
        return FIRST_PORT + 2 * call

    server_port = client_port

    def switch(self, value):
        command = ["ip", "netns", "exec", self.topology.device, "sysctl", "-qw"]
        subprocess.run([*command, f"net.ipv4.ip_forward={value}"], check=True)

    def alive(self):
        pass

    def thread_ns(self):
        return 0

    def end_calls(self):
        return None

    def stop(self):
        self.switch(0)


class Bare(Device):
    """epoll, recvmmsg, sendmmsg: data-plane/io/examples/bare_relay.rs."""

    def __init__(self, topology, folder, args, calls, way="bare"):
        self.pairs = []
        lines = []
        for call in range(calls):
            port = 10000 + 2 * call
            near, far = (DEVICE_CLIENT, port), (DEVICE_SERVER, port)
            self.pairs.append((near, far))
            client = f"{CLIENT_RTP}:{self.client_port(call)}"
            server = f"{SERVER_RTP}:{self.server_port(call)}"
            lines.append(f"{near[0]}:{port} {client} {far[0]}:{port} {server}\n")
        ports = folder / "bare.ports"
        ports.write_text("".join(lines))
        super().__init__(way, [args.bare, str(ports), way], topology, folder, args.device_core)
        end = time.monotonic() + 20
        while "ready" not in self.tail():
            self.alive()
            if time.monotonic() > end:
                raise SystemExit("bare_relay does not start")
            time.sleep(0.05)


def bencode(value):
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    if isinstance(value, list):
        return b"l" + b"".join(map(bencode, value)) + b"e"
    return b"d" + b"".join(bencode(k) + bencode(v) for k, v in sorted(value.items())) + b"e"


def bdecode(data, at=0):
    kind = data[at : at + 1]
    if kind == b"i":
        end = data.index(b"e", at)
        return int(data[at + 1 : end]), end + 1
    if kind in b"ld":
        items, at = [], at + 1
        while data[at : at + 1] != b"e":
            item, at = bdecode(data, at)
            items.append(item)
        return (items if kind == b"l" else dict(zip(items[::2], items[1::2]))), at + 1
    colon = data.index(b":", at)
    end = colon + 1 + int(data[at:colon])
    return data[colon + 1 : end].decode(), end


class Rtpengine(Device):
    def __init__(self, topology, folder, args, calls):
        command = ["rtpengine", "--foreground", "--log-stderr", "--log-level=4", "--table=-1"]
        command += [f"--interface=client/{DEVICE_CLIENT}", f"--interface=server/{DEVICE_SERVER}"]
        command += ["--listen-ng=127.0.0.1:2223", "--port-min=10000", "--port-max=39999"]
        command += [f"--num-threads={args.rtpengine_threads}", f"--pidfile={folder}/rtpengine.pid"]
        super().__init__("rtpengine", command, topology, folder, args.device_core)
        self.control = socket_in(topology.device, ("127.0.0.1", 0))
        self.control.settimeout(1)
        end = time.monotonic() + 20
        while True:
            self.alive()
            try:
                if self.ask({"command": "ping"})["result"] == "pong":
                    break
            except OSError:
                pass
            if time.monotonic() > end:
                raise SystemExit(f"rtpengine does not answer: {self.tail()}")
            time.sleep(0.1)
        self.pairs = [self.call(number) for number in range(calls)]

    def ask(self, request):
        cookie = os.urandom(6).hex().encode()
        self.control.sendto(cookie + b" " + bencode(request), ("127.0.0.1", 2223))
        while True:
            reply = self.control.recv(65535)
            if reply.startswith(cookie + b" "):
                return bdecode(reply[len(cookie) + 1 :])[0]

    def call(self, number):
        name = {"call-id": f"bench-{number}", "from-tag": "a"}
        plain = {"ICE": "remove", "replace": ["origin"]}
        offer = sdp(CLIENT_RTP, self.client_port(number))
        there = self.ask(
            {**name, **plain, "command": "offer", "sdp": offer, "direction": ["client", "server"]}
        )
        answer = sdp(SERVER_RTP, self.server_port(number))
        back = self.ask({**name, **plain, "command": "answer", "to-tag": "b", "sdp": answer})
        if "ok" not in (there.get("result"), back.get("result")):
            raise SystemExit(f"rtpengine refused: {there} {back}")
        return media_of(back["sdp"]), media_of(there["sdp"])

    def stop(self):
        self.control.close()
        super().stop()


CONFIG = f"""\
node: bench-media
deployment: {{ mode: production }}
edge:
  cores: [DEVICE_CORE]
  DRIVER
  listeners:
    - {{ id: access-udp, realm: access, transport: udp, bind: "{DEVICE_CLIENT}:{SIP_PORT}" }}
    - {{ id: core-udp, realm: core, transport: udp, bind: "{DEVICE_SERVER}:{SIP_PORT}" }}
  media:
    - {{ realm: access, address: {DEVICE_CLIENT}, ports: 10000-13999 }}
    - {{ realm: core, address: {DEVICE_SERVER}, ports: 10000-13999 }}
trunks:
  - id: client
    realm: access
    role: customer
    sources: [{CLIENT_SIP}/32]
    targets: [{{ uri: "sip:{CLIENT_SIP}:{SIP_PORT}" }}]
  - id: server
    realm: core
    role: carrier
    sources: [{SERVER_SIP}/32]
    targets: [{{ uri: "sip:{SERVER_SIP}:{SIP_PORT}" }}]
routes:
  - {{ id: outbound, from: [client], to: "*", trunks: [server] }}
"""


def header(message, name):
    return re.search(rf"^{name}\s*:\s*(.*?)\r$", message, re.M | re.I).group(1)


class Ravelin(Device):
    """The product as it is: calls placed by SIP, one INVITE each, answered with 200 and held."""

    def __init__(self, topology, folder, args, calls, name="ravelin", binary=None, driver=None):
        text = CONFIG.replace("DEVICE_CORE", str(args.device_core))
        # `edge.xdp` and the like: what a comparison of drivers asks for.
        text = text.replace("DRIVER", args.edge_setting or "")
        if driver:
            text = re.sub(r"(ports: \d+-\d+) \}", rf"\1, driver: {driver} }}", text)
        config, data = folder / f"{name}.yml", folder / f"{name}-data"
        config.write_text(text)
        data.mkdir(exist_ok=True)
        command = [binary or args.binary, "edge", "--config", str(config), "--data", str(data)]
        super().__init__(name, command, topology, folder, args.device_core)
        self.client = socket_in(topology.client, (CLIENT_SIP, SIP_PORT))
        self.server = socket_in(topology.server, (SERVER_SIP, SIP_PORT))
        self.run_id = os.urandom(4).hex()
        self.wait_ready()
        # The line comes a moment after the first answer.
        end = time.monotonic() + 10
        while "edge: ready" not in self.tail() and time.monotonic() < end:
            time.sleep(0.05)
        if driver and f"driver {driver}" not in self.tail():
            raise SystemExit(f"{name} does not run on {driver}: {self.tail()}")
        self.dialogs = {}
        self.pairs = self.place(calls)

    def send(self, text, body=""):
        text = text.replace("\n", "\r\n") + f"Content-Length: {len(body)}\r\n\r\n{body}"
        self.client.sendto(text.encode(), (DEVICE_CLIENT, SIP_PORT))

    def begin(self, method, call, cseq, to_tag="", hops=70, target=None):
        return (
            f"{method} {target or f'sip:{2000 + call}@{DEVICE_CLIENT}'} SIP/2.0\n"
            f"Via: SIP/2.0/UDP {CLIENT_SIP}:{SIP_PORT};branch=z9hG4bK{self.run_id}{call}{cseq}{method}\n"
            f"Max-Forwards: {hops}\nFrom: <sip:1000@{CLIENT_SIP}>;tag=f{call}\n"
            f"To: <sip:{2000 + call}@{DEVICE_CLIENT}>{to_tag}\n"
            f"Call-ID: {self.run_id}-{call}@{CLIENT_SIP}\nCSeq: {cseq} {method}\n"
            f"Contact: <sip:1000@{CLIENT_SIP}:{SIP_PORT}>\n"
        )

    def wait_ready(self):
        self.client.settimeout(0.3)
        end = time.monotonic() + 30
        while time.monotonic() < end:
            self.alive()
            # 483 says that it takes calls.
            self.send(self.begin("OPTIONS", 0, int(time.monotonic() * 1000) % 100000, hops=0))
            try:
                self.client.recv(65535)
                return
            except OSError:
                time.sleep(0.1)
        raise SystemExit(f"{self.name} does not answer: {self.tail()}")

    def described(self, offer, number):
        """The called party's answer to an offer."""
        return sdp(SERVER_RTP, self.server_port(number))

    def answer(self, message, source):
        """What the called party says to each request."""
        head = [line for line in message.split("\r\n\r\n", 1)[0].split("\r\n")[1:]]
        kept = [l for l in head if re.match(r"(via|from|call-id|cseq|record-route)\s*:", l, re.I)]
        to = header(message, "To")
        if message.startswith("ACK "):
            return
        body = ""
        if message.startswith("INVITE "):
            number = int(re.match(r"INVITE sip:(\d+)@", message).group(1)) - 2000
            self.far[number] = media_of(message)
            body = self.described(message, number)
            to += f";tag=t{number}"
        lines = ["SIP/2.0 200 OK", *kept, f"To: {to}", f"Contact: <sip:{SERVER_SIP}:{SIP_PORT}>"]
        if body:
            lines.append("Content-Type: application/sdp")
        lines += [f"Content-Length: {len(body)}", "", body]
        self.server.sendto("\r\n".join(lines).encode(), source)

    def pump(self, done, seconds):
        """Serves both parties until `done`."""
        chosen = selectors.DefaultSelector()
        for party in (self.client, self.server):
            party.setblocking(False)
            chosen.register(party, selectors.EVENT_READ)
        end = time.monotonic() + seconds
        while not done() and time.monotonic() < end:
            self.alive()
            for key, _ in chosen.select(0.1):
                try:
                    data, source = key.fileobj.recvfrom(65535)
                except OSError:
                    continue
                message = data.decode(errors="replace")
                if key.fileobj is self.server:
                    if not message.startswith("SIP/2.0"):
                        self.answer(message, source)
                elif message.startswith("SIP/2.0 "):
                    self.heard(message)

    def heard(self, message):
        code = int(message[8:11])
        method = header(message, "CSeq").split()[1]
        found = re.match(rf"{self.run_id}-(\d+)@", header(message, "Call-ID"))
        if not found or code < 200:
            return
        call = int(found.group(1))
        if method == "BYE":
            self.ended[call] = code
        elif method == "INVITE":
            if code != 200:
                raise SystemExit(f"{self.name} refused call {call}: {message.splitlines()[0]}")
            to_tag = ";" + header(message, "To").split(";", 1)[1]
            target = re.search(r"<([^>]+)>", header(message, "Contact")).group(1)
            self.dialogs[call] = (to_tag, target)
            self.near[call] = media_of(message)
            self.send(self.begin("ACK", call, 1, to_tag, target=target))

    def place(self, calls):
        self.near, self.far, self.ended = {}, {}, {}
        for first in range(0, calls, 50):
            batch = range(first, min(first + 50, calls))
            for call in batch:
                invite = self.begin("INVITE", call, 1) + "Content-Type: application/sdp\n"
                self.send(invite, sdp(CLIENT_RTP, self.client_port(call)))
            self.pump(lambda: all(call in self.near for call in batch), 20)
        missing = [call for call in range(calls) if call not in self.near]
        if missing:
            raise SystemExit(f"{self.name}: {len(missing)} calls were not answered: {self.tail()}")
        return [(self.near[call], self.far[call]) for call in range(calls)]

    def end_calls(self):
        """Hangs up every call. Returns how many answered with 200."""
        calls = sorted(self.dialogs)
        for first in range(0, len(calls), 50):
            batch = calls[first : first + 50]
            for call in batch:
                to_tag, target = self.dialogs[call]
                self.send(self.begin("BYE", call, 2, to_tag, target=target))
            self.pump(lambda: all(call in self.ended for call in batch), 10)
        return sum(code == 200 for code in self.ended.values())

    def stop(self):
        self.client.close()
        self.server.close()
        super().stop()


def raise_open_files():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
