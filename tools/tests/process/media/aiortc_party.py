"""A WebRTC party for the test in browser.rs: aiortc with its own ICE, DTLS and SRTP.

Reads `offer` or `answer` and a description in JSON lines from standard input, writes the same to
standard output, then one line for each thing that happens. It says one tone for ever and reports
the loudest sample of what it hears.
"""

import asyncio
import fractions
import json
import sys

import aioice.ice
import av
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from aiortc.mediastreams import MediaStreamTrack

# A sample value that G.711 mu-law has exactly.
SAID = int(sys.argv[2])
# It is a host on loopback, which aioice would pass over.
aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: [sys.argv[3]]


def tell(**what):
    print(json.dumps(what), flush=True)


class Tone(MediaStreamTrack):
    kind = "audio"

    def __init__(self):
        super().__init__()
        self.time = 0
        self.begun = None

    async def recv(self):
        loop = asyncio.get_event_loop()
        if self.begun is None:
            self.begun = loop.time()
        await asyncio.sleep(max(0, self.begun + self.time / 8000 - loop.time()))
        frame = av.AudioFrame(format="s16", layout="mono", samples=160)
        frame.planes[0].update(SAID.to_bytes(2, "little", signed=True) * 160)
        frame.pts = self.time
        frame.sample_rate = 8000
        frame.time_base = fractions.Fraction(1, 8000)
        self.time += 160
        return frame


async def listen(track):
    while True:
        frame = await track.recv()
        octets = bytes(frame.planes[0])[: 2 * frame.samples]
        samples = [
            int.from_bytes(octets[at : at + 2], "little", signed=True)
            for at in range(0, len(octets), 2)
        ]
        tell(heard=max(samples), least=min(samples))


async def read():
    line = await asyncio.get_event_loop().run_in_executor(None, sys.stdin.readline)
    return json.loads(line) if line else None


async def main(role):
    party = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    party.on("track", lambda track: asyncio.ensure_future(listen(track)))

    @party.on("iceconnectionstatechange")
    def ice():
        tell(ice=party.iceConnectionState)

    @party.on("connectionstatechange")
    def connection():
        tell(connection=party.connectionState)

    def narrow():
        codecs = RTCRtpSender.getCapabilities("audio").codecs
        for transceiver in party.getTransceivers():
            transceiver.setCodecPreferences([c for c in codecs if c.mimeType == "audio/PCMU"])

    if role == "answer":
        offer = await read()
        await party.setRemoteDescription(RTCSessionDescription(offer["sdp"], "offer"))
        party.addTrack(Tone())
        narrow()
        await party.setLocalDescription(await party.createAnswer())
        tell(sdp=party.localDescription.sdp)
    else:
        party.addTrack(Tone())
        narrow()
        await party.setLocalDescription(await party.createOffer())
        tell(sdp=party.localDescription.sdp)
        answer = await read()
        await party.setRemoteDescription(RTCSessionDescription(answer["sdp"], "answer"))
    await read()
    await party.close()


asyncio.run(main(sys.argv[1]))
