"""GStreamer's webrtcbin as a peer: sends pictures on one connection and decodes those that it is sent on another.

Each line of its output is JSON: its offer, its answer to the other connection's offer, and how many pictures it has decoded so
far, and how much brighter the brightest part of the last one was than its darkest. Each line of its input is JSON too: the answer,
and then the offer. It ends when its input does.
"""

import json
import os
import sys
import threading

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC

PICTURES = (
    "videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=180,framerate=15/1 ! "
    "vp8enc deadline=1 keyframe-max-dist=30 ! rtpvp8pay ! "
    "capsfilter caps=application/x-rtp,media=video,encoding-name=VP8,payload=96"
)
DECODING = (
    "rtpvp8depay name=in ! vp8dec ! videoconvert ! video/x-raw,format=GRAY8 ! "
    "appsink name=out emit-signals=true sync=false"
)


def say(what):
    print(json.dumps(what), flush=True)


# What descriptions are made of and do not keep alive themselves.
messages = []


def description(kind, text):
    # One that came in a promise's reply is empty after Python has copied it, so each is made from its text.
    _, message = GstSdp.SDPMessage.new_from_text(text)
    messages.append(message)
    return GstWebRTC.WebRTCSessionDescription.new(kind, message)


class Connection:
    """One webrtcbin in a pipeline of its own, on loopback only."""

    def __init__(self, source=None):
        self.pipeline = Gst.Pipeline.new()
        self.webrtc = Gst.ElementFactory.make("webrtcbin")
        self.webrtc.set_property("bundle-policy", GstWebRTC.WebRTCBundlePolicy.MAX_BUNDLE)
        self.pipeline.add(self.webrtc)
        # Kept, because Python would take webrtcbin's own hold of it away together with its own.
        self.ice = self.webrtc.get_property("ice-agent")
        self.ice.emit("add-local-ip-address", "127.0.0.1")
        self.webrtc.connect("notify::ice-gathering-state", self.on_gathering)
        self.webrtc.connect("pad-added", self.on_pad)
        self.decoded = self.contrast = 0
        self.kind = None
        bus = self.pipeline.get_bus()
        bus.add_signal_watch()
        bus.connect("message::error", lambda _, message: sys.exit(message.parse_error()[1]))
        if source:
            pictures = Gst.parse_bin_from_description(source, True)
            self.pipeline.add(pictures)
            self.webrtc.connect("on-negotiation-needed", self.offer)
            pictures.get_static_pad("src").link(self.webrtc.request_pad_simple("sink_%u"))
        self.pipeline.set_state(Gst.State.PLAYING)

    def offer(self, _):
        self.create("offer", GstWebRTC.WebRTCSDPType.OFFER)

    def answer(self, offer):
        def then(_):
            self.create("answer", GstWebRTC.WebRTCSDPType.ANSWER)

        self.set_remote(GstWebRTC.WebRTCSDPType.OFFER, offer, then)

    def set_remote(self, kind, text, then):
        promise = Gst.Promise.new_with_change_func(then)
        self.webrtc.emit("set-remote-description", description(kind, text), promise)

    def create(self, kind, sdp_type):
        def then(promise):
            self.kind = kind
            # Python frees each of these when it has no name, also if what is in it still has one.
            reply = promise.get_reply()
            made = reply.get_value(kind)
            sdp = made.sdp
            text = sdp.as_text()
            self.webrtc.emit("set-local-description", description(sdp_type, text), Gst.Promise.new())

        self.webrtc.emit(f"create-{kind}", None, Gst.Promise.new_with_change_func(then))

    def on_gathering(self, webrtc, _):
        # With all candidates in it.
        if webrtc.get_property("ice-gathering-state") == GstWebRTC.WebRTCICEGatheringState.COMPLETE:
            local = webrtc.get_property("local-description")
            sdp = local.sdp
            say({self.kind: sdp.as_text()})

    def on_pad(self, _, pad):
        if pad.get_direction() != Gst.PadDirection.SRC:
            return
        decoding = Gst.parse_bin_from_description(DECODING, False)
        decoding.get_by_name("out").connect("new-sample", self.on_picture)
        sink = Gst.GhostPad.new("sink", decoding.get_by_name("in").get_static_pad("sink"))
        decoding.add_pad(sink)
        self.pipeline.add(decoding)
        pad.link(sink)
        decoding.sync_state_with_parent()

    def on_picture(self, sink):
        buffer = sink.emit("pull-sample").get_buffer()
        grey = buffer.extract_dup(0, buffer.get_size())
        self.decoded += 1
        self.contrast = max(grey) - min(grey)
        return Gst.FlowReturn.OK


def main():
    Gst.init(None)
    loop = GLib.MainLoop()
    sending = Connection(PICTURES)
    receiving = Connection()

    def heard(line):
        message = json.loads(line)
        if "answer" in message:
            sending.set_remote(GstWebRTC.WebRTCSDPType.ANSWER, message["answer"], lambda _: None)
        else:
            receiving.answer(message["offer"])

    def listen():
        for line in sys.stdin:
            GLib.idle_add(heard, line)
        loop.quit()

    def report():
        say({"received": receiving.decoded, "contrast": receiving.contrast})
        return True

    threading.Thread(target=listen, daemon=True).start()
    GLib.timeout_add(200, report)
    loop.run()
    # Nothing calls into Python any more after this.
    for connection in (sending, receiving):
        connection.pipeline.set_state(Gst.State.NULL)
    # Python's own end would free objects of webrtcbin's that it holds wrongly (see above); they are of no more use.
    sys.stdout.flush()
    os._exit(0)


main()
