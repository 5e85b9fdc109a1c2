"""One person in a room, with aiortc's media stack: sends a moving picture and a tone, and decodes what everybody else sends.

    peer.py SOCKET ROOM NAME [send] [receive] [--video VP8|H264] [--key P-256|P-224|RSA-2048] [--dtls client|server]

It speaks the mediasoup protocol on a WebSocket over the control socket. Every line of its output is JSON: what it has decoded so
far. It leaves when its input ends.
"""

import argparse
import asyncio
import fractions
import itertools
import json
import math
import sys

import aioice.ice
import numpy
import websockets.asyncio.client
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
)
from aiortc import rtcdtlstransport
from aiortc.mediastreams import MediaStreamError
from aiortc.sdp import SessionDescription
from av import AudioFrame, VideoFrame
from cryptography.hazmat.primitives.asymmetric import ec, rsa

# Candidates of this machine alone; without this, aioice would leave out the only address that is wanted.
aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]

WIDTH, HEIGHT, FRAME_RATE = 320, 180, 15
SAMPLE_RATE, TONE_HZ = 48_000, 440


KEYS = {
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-224": lambda: ec.generate_private_key(ec.SECP224R1()),
    "RSA-2048": lambda: rsa.generate_private_key(public_exponent=65_537, key_size=2_048),
}


def show_certificates_with(kind):
    """From now on all certificates of this program have such keys."""

    def generate(cls):
        key = KEYS[kind]()
        return cls(key=key, cert=rtcdtlstransport.generate_certificate(key))

    rtcdtlstransport.RTCCertificate.generateCertificate = classmethod(generate)


class Clock:
    """Frames at their true pace."""

    def __init__(self, interval):
        self.interval = interval
        self.start = None

    async def tick(self, number):
        now = asyncio.get_running_loop().time()
        self.start = now if self.start is None else self.start
        await asyncio.sleep(max(0, self.start + number * self.interval - now))


class Picture(MediaStreamTrack):
    """A bright bar that walks over a dark picture."""

    kind = "video"

    def __init__(self):
        super().__init__()
        self.numbers = itertools.count()
        self.clock = Clock(1 / FRAME_RATE)

    async def recv(self):
        number = next(self.numbers)
        await self.clock.tick(number)
        image = numpy.full((HEIGHT, WIDTH, 3), 40, numpy.uint8)
        left = number * 8 % (WIDTH - 40)
        image[:, left : left + 40] = 220
        frame = VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts, frame.time_base = number * 90_000 // FRAME_RATE, fractions.Fraction(1, 90_000)
        return frame


class Tone(MediaStreamTrack):
    """A tone of 440 Hz."""

    kind = "audio"

    def __init__(self):
        super().__init__()
        self.numbers = itertools.count()
        self.clock = Clock(0.02)

    async def recv(self):
        number = next(self.numbers)
        await self.clock.tick(number)
        count = SAMPLE_RATE // 50
        moments = (numpy.arange(count) + number * count) / SAMPLE_RATE
        samples = (numpy.sin(2 * math.pi * TONE_HZ * moments) * 12_000).astype(numpy.int16)
        frame = AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE, number * count
        frame.time_base = fractions.Fraction(1, SAMPLE_RATE)
        return frame


class Signalling:
    """The mediasoup protocol in protoo's envelopes."""

    def __init__(self, socket, on_notification):
        self.socket = socket
        self.on_notification = on_notification
        self.ids = itertools.count(1)
        self.waiting = {}

    async def listen(self):
        async for text in self.socket:
            message = json.loads(text)
            if message.get("response"):
                answer = self.waiting.pop(message["id"])
                if message["ok"]:
                    answer.set_result(message.get("data"))
                else:
                    answer.set_exception(RuntimeError(f"{message['errorName']}: {message['errorReason']}"))
            elif message.get("method") == "mediasoup-notification":
                self.on_notification(message["data"])

    async def request(self, method, target="peer", **members):
        number = next(self.ids)
        answer = self.waiting[number] = asyncio.get_running_loop().create_future()
        data = {"method": method, "target": target, **members}
        envelope = {"request": True, "id": number, "method": "mediasoup-request", "data": data}
        await self.socket.send(json.dumps(envelope))
        return await answer

    async def notify(self, method, **members):
        data = {"method": method, "target": "peer", "notification": True, **members}
        envelope = {"notification": True, "method": "mediasoup-notification", "data": data}
        await self.socket.send(json.dumps(envelope))


def attributes_of(transport):
    """The lines that say in each media section where Weir is and who it is."""
    ice, dtls = transport["iceParameters"], transport["dtlsParameters"]
    setup = {"auto": "actpass", "client": "active", "server": "passive"}[dtls["role"]]
    lines = [f"a=ice-ufrag:{ice['usernameFragment']}", f"a=ice-pwd:{ice['password']}", f"a=setup:{setup}"]
    # aiortc verifies the strongest that it is told.
    lines += [
        f"a=fingerprint:{each['algorithm']} {each['value']}"
        for each in dtls["fingerprints"]
        if each["algorithm"] in ("sha-256", "sha-384", "sha-512")
    ]
    for each in transport["iceCandidates"]:
        if each["protocol"] == "udp":
            lines.append(
                f"a=candidate:{each['foundation']} 1 udp {each['priority']} {each['ip']} {each['port']} typ {each['type']}"
            )
    return lines + ["a=end-of-candidates"]


def session(sections, mids):
    head = ["v=0", "o=weir 1 1 IN IP4 127.0.0.1", "s=-", "t=0 0", "a=ice-lite", f"a=group:BUNDLE {' '.join(mids)}"]
    return "\r\n".join(head + sections) + "\r\n"


def codec_lines(codec):
    number = codec["payloadType"]
    channels = f"/{codec['channels']}" if codec.get("channels", 1) > 1 else ""
    lines = [f"a=rtpmap:{number} {codec['mimeType'].split('/')[1]}/{codec['clockRate']}{channels}"]
    if codec.get("parameters"):
        lines.append(f"a=fmtp:{number} " + ";".join(f"{key}={value}" for key, value in codec["parameters"].items()))
    for feedback in codec.get("rtcpFeedback", []):
        lines.append(f"a=rtcp-fb:{number} {feedback['type']} {feedback.get('parameter') or ''}".rstrip())
    return lines


def fingerprints(description):
    """What the local side says of its certificate."""
    dtls = description.media[0].dtls
    return [{"algorithm": each.algorithm, "value": each.value} for each in dtls.fingerprints]


def feedback_of(codec):
    return [{"type": each.type, "parameter": each.parameter or ""} for each in codec.rtcpFeedback]


async def send(signalling, video, dtls):
    """Sends a picture and a tone on a transport of its own."""
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[], bundlePolicy="max-bundle"))
    pc.addTransceiver(Tone(), "sendonly")
    pictures = pc.addTransceiver(Picture(), "sendonly")
    wanted = [f"video/{video}", "video/rtx"]
    codecs = [each for each in RTCRtpSender.getCapabilities("video").codecs if each.mimeType in wanted]
    pictures.setCodecPreferences(codecs)
    await pc.setLocalDescription(await pc.createOffer())
    local = SessionDescription.parse(pc.localDescription.sdp)
    transport = await signalling.request(
        "createTransport",
        id=1,
        direction="send",
        options={},
        dtlsParameters={"role": dtls, "fingerprints": fingerprints(local)},
        appData={},
    )
    sections, chosen = [], []
    for media in local.media:
        # One codec each, and its RTX.
        main = media.rtp.codecs[0]
        rtx = [each for each in media.rtp.codecs if each.parameters.get("apt") == main.payloadType]
        chosen.append([main, *rtx])
        numbers = " ".join(str(each.payloadType) for each in chosen[-1])
        sections += [f"m={media.kind} 7 UDP/TLS/RTP/SAVPF {numbers}", "c=IN IP4 127.0.0.1", "a=recvonly", "a=rtcp-mux"]
        sections += [f"a=mid:{media.rtp.muxId}"] + attributes_of(transport)
        for codec in chosen[-1]:
            sections += codec_lines(described(codec))
    answer = session(sections, [media.rtp.muxId for media in local.media])
    await pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    for number, (media, codecs) in enumerate(zip(local.media, chosen)):
        ssrcs = [each.ssrc for each in media.ssrc]
        encoding = {"ssrc": ssrcs[0]}
        if len(codecs) > 1 and len(ssrcs) > 1:
            encoding["rtx"] = {"ssrc": ssrcs[1]}
        await signalling.request(
            "createProducer",
            id=10 + number,
            kind=media.kind,
            transportId=1,
            rtpParameters={
                "codecs": [described(codec) for codec in codecs],
                "headerExtensions": [],
                "encodings": [encoding],
                "rtcp": {"cname": media.ssrc[0].cname, "reducedSize": True, "mux": True},
                "muxId": media.rtp.muxId,
            },
            paused=False,
            appData={},
        )
    return pc


def described(codec):
    """A codec of aiortc's as mediasoup describes it."""
    found = {
        "name": codec.name,
        "mimeType": codec.mimeType,
        "payloadType": codec.payloadType,
        "clockRate": codec.clockRate,
        "parameters": codec.parameters,
        "rtcpFeedback": feedback_of(codec),
    }
    return {**found, "channels": codec.channels} if codec.mimeType == "audio/opus" else found


class Receiver:
    """Decodes what the others send, all of it on one transport."""

    def __init__(self, signalling, dtls):
        self.signalling = signalling
        self.dtls = dtls
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[], bundlePolicy="max-bundle"))
        self.pc.on("track", lambda track: asyncio.ensure_future(self.decode(track)))
        self.transport = None
        self.consumers = []
        self.decoded = {"video": 0, "audio": 0}
        self.contrast = 0
        self.loudness = 0
        self.pitch = 0

    async def consume(self, consumers):
        if self.transport is None:
            self.transport = await self.signalling.request(
                "createTransport", id=2, direction="recv", options={}, appData={}
            )
            # It is given its role by the answer below.
            self.transport["dtlsParameters"]["role"] = "client" if self.dtls == "server" else "auto"
        first = not self.consumers
        self.consumers += consumers
        sections, mids = [], []
        for number, consumer in enumerate(self.consumers):
            parameters = consumer["rtpParameters"]
            codecs = parameters["codecs"]
            numbers = " ".join(str(each["payloadType"]) for each in codecs)
            mids.append(str(number))
            sections += [f"m={consumer['kind']} 7 UDP/TLS/RTP/SAVPF {numbers}", "c=IN IP4 127.0.0.1", "a=sendonly"]
            sections += ["a=rtcp-mux", f"a=mid:{number}"] + attributes_of(self.transport)
            for codec in codecs:
                sections += codec_lines(codec)
            (encoding,) = parameters["encodings"]
            ssrcs = [encoding["ssrc"]]
            if "rtx" in encoding:
                ssrcs.append(encoding["rtx"]["ssrc"])
                sections.append(f"a=ssrc-group:FID {ssrcs[0]} {ssrcs[1]}")
            sections += [f"a=ssrc:{ssrc} cname:{parameters['rtcp']['cname']}" for ssrc in ssrcs]
        offer = session(sections, mids)
        await self.pc.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        await self.pc.setLocalDescription(await self.pc.createAnswer())
        if first:
            local = SessionDescription.parse(self.pc.localDescription.sdp)
            await self.signalling.notify(
                "updateTransport", id=2, dtlsParameters={"role": self.dtls, "fingerprints": fingerprints(local)}
            )
        for consumer in consumers:
            await self.signalling.request(
                "enableConsumer", id=consumer["id"], transportId=2, paused=False, preferredProfile="default"
            )

    async def decode(self, track):
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            self.decoded[track.kind] += 1
            if track.kind == "video":
                grey = frame.to_ndarray(format="gray")
                self.contrast = int(grey.max()) - int(grey.min())
            else:
                samples = frame.to_ndarray().astype(numpy.float64).reshape(-1, len(frame.layout.channels))[:, 0]
                self.loudness = int(numpy.sqrt((samples**2).mean()))
                spectrum = numpy.abs(numpy.fft.rfft(samples))
                self.pitch = int(spectrum.argmax() * frame.sample_rate / len(samples))

    def report(self):
        return {**self.decoded, "contrast": self.contrast, "loudness": self.loudness, "pitch": self.pitch}


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("socket")
    parser.add_argument("room")
    parser.add_argument("name")
    parser.add_argument("tasks", nargs="+", choices=["send", "receive"])
    parser.add_argument("--video", choices=["VP8", "H264"], default="VP8")
    parser.add_argument("--key", choices=KEYS, default="P-256", help="the key of the certificate that it shows")
    parser.add_argument("--dtls", choices=["client", "server"], default="client", help="its role in the handshakes")
    options = parser.parse_args()
    show_certificates_with(options.key)
    uri = f"ws://weir/rooms/{options.room}/peers/{options.name}"
    connecting = websockets.asyncio.client.unix_connect(options.socket, uri, subprotocols=["protoo"])
    async with connecting as socket:
        arriving = asyncio.Queue()

        def hear(message):
            if message["method"] == "newConsumer":
                arriving.put_nowait(message)

        signalling = Signalling(socket, hear)
        listening = asyncio.ensure_future(signalling.listen())
        known = (await signalling.request("queryRoom", target="room"))["rtpCapabilities"]
        mine = ("audio/opus", f"video/{options.video}")
        numbers = [each["preferredPayloadType"] for each in known["codecs"] if each["mimeType"] in mine]
        codecs = [
            each
            for each in known["codecs"]
            if each["mimeType"] in mine or each.get("parameters", {}).get("apt") in numbers
        ]
        capabilities = {**known, "codecs": codecs, "headerExtensions": []}
        joined = await signalling.request(
            "join", target="room", peerName=options.name, rtpCapabilities=capabilities, spy=False, appData={}
        )
        there = [consumer for peer in joined["peers"] for consumer in peer["consumers"]]
        sending = await send(signalling, options.video, options.dtls) if "send" in options.tasks else None
        receiver = Receiver(signalling, options.dtls) if "receive" in options.tasks else None

        async def receive():
            if there:
                await receiver.consume(there)
            while True:
                await receiver.consume([await arriving.get()])

        receiving = asyncio.ensure_future(receive()) if receiver else None
        reading = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        work = [each for each in (listening, receiving) if each]
        while not reading.done():
            done, _ = await asyncio.wait([reading, *work], timeout=0.2, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                if each is not reading:
                    # Its error, or that the server hung up.
                    raise each.exception() or RuntimeError("the server closed the connection")
            states = {"sending": sending.connectionState} if sending else {}
            print(json.dumps({**states, **(receiver.report() if receiver else {})}), flush=True)
        await signalling.notify("leave", appData={})
        for pc in filter(None, (sending, receiver and receiver.pc)):
            await pc.close()
        for each in work:
            each.cancel()


asyncio.run(main())
