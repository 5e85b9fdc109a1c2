"""ffmpeg's WHIP muxer, as PyAV brings it: publishes pictures and sound until its input ends.

    whip.py URL [OPTION=VALUE...]

The options are the muxer's own. This ffmpeg is linked to GnuTLS and makes itself a certificate with a key on the curve P-224 if
it is given none.
"""

import fractions
import sys
import threading
import time

import av
import numpy

WIDTH, HEIGHT, FRAME_RATE = 320, 180, 15
SAMPLE_RATE = 48_000

ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()

options = dict(option.split("=", 1) for option in sys.argv[2:])
with av.open(sys.argv[1], "w", format="whip", options=options) as container:
    # WebRTC has no pictures that are decoded in another order than they are shown.
    video = container.add_stream("libx264", FRAME_RATE)
    video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    video.options = {"preset": "ultrafast", "tune": "zerolatency", "profile": "baseline", "g": str(FRAME_RATE)}
    audio = container.add_stream("libopus", SAMPLE_RATE)
    audio.layout = "stereo"
    container.start_encoding()
    start = time.monotonic()
    number = 0
    while not ended.wait(max(0, start + number / FRAME_RATE - time.monotonic())):
        image = numpy.full((HEIGHT, WIDTH, 3), number * 8 % 256, numpy.uint8)
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts, frame.time_base = number, fractions.Fraction(1, FRAME_RATE)
        container.mux(video.encode(frame))
        count = SAMPLE_RATE // FRAME_RATE
        sound = av.AudioFrame.from_ndarray(numpy.zeros((1, 2 * count), numpy.int16), format="s16", layout="stereo")
        sound.sample_rate, sound.pts, sound.time_base = SAMPLE_RATE, number * count, fractions.Fraction(1, SAMPLE_RATE)
        container.mux(audio.encode(sound))
        number += 1
