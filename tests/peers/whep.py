"""aiortc as a WHEP player: watches at a URL and decodes pictures and sound until its input ends.

    whep.py URL [KIND...]

It offers to receive audio and video, or these kinds.

Each line of its output is JSON: how many pictures it has decoded (`received`), their size, and how many frames of sound.
"""

import asyncio
import json
import sys
import urllib.parse
import urllib.request

import aiortc


def say(what):
    print(json.dumps(what), flush=True)


def ask(method, url, body=None, content_type=None):
    headers = {"content-type": content_type} if content_type else {}
    request = urllib.request.Request(url, body, headers, method=method)
    with urllib.request.urlopen(request) as response:
        return response.status, response.headers, response.read().decode()


async def main():
    url = sys.argv[1]
    connection = aiortc.RTCPeerConnection()
    counts = {"received": 0, "width": 0, "height": 0, "sounds": 0}

    async def decode(track):
        while True:
            try:
                frame = await track.recv()
            except aiortc.mediastreams.MediaStreamError:
                return
            if track.kind == "video":
                counts["received"] += 1
                counts["width"], counts["height"] = frame.width, frame.height
                if counts["received"] % 5 == 0:
                    say(counts)
            else:
                counts["sounds"] += 1

    tasks = []
    connection.on("track", lambda track: tasks.append(asyncio.ensure_future(decode(track))))
    for kind in sys.argv[2:] or ["audio", "video"]:
        connection.addTransceiver(kind, direction="recvonly")
    await connection.setLocalDescription(await connection.createOffer())
    offer = connection.localDescription.sdp.encode()
    status, headers, answer = ask("POST", url, offer, "application/sdp")
    assert status == 201, status
    await connection.setRemoteDescription(aiortc.RTCSessionDescription(answer, "answer"))
    say({"answer": answer})
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    status, _, _ = ask("DELETE", urllib.parse.urljoin(url, headers["location"]))
    assert status == 200, status
    await connection.close()


asyncio.run(main())
