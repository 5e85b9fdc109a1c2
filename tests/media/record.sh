#!/bin/sh
# Regenerates the recordings of this directory. Needs ffmpeg (made with 5.1) and cargo; takes about 20 seconds.
# What comes out is the same media in the same packets under the same numbers; only the times of sending differ a little.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
seconds=10
ff="ffmpeg -hide_banner -loglevel error -nostdin"

echo "encoding"
# One picture in three sizes. Two temporal layers, of which the second is referenced by nothing; a key frame every 60
# frames in all three; no lookahead, no alternate reference frame (its frames are never shown). One thread, and a fixed speed
# (negative; a positive one adapts to how busy the machine is): the output is the same on every run.
vp8() { # name, bits/s of the base layer, bits/s of both
    echo "-map [$1] -c:v libvpx -deadline realtime -cpu-used -4 -threads 1 -error-resilient default
        -auto-alt-ref 0 -lag-in-frames 0 -g 9999 -force_key_frames expr:eq(mod(n,60),0)
        -b:v $3 -maxrate $3 -bufsize $3
        -ts-parameters ts_number_layers=2:ts_layering_mode=2:ts_target_bitrate=$(($2 / 1000)),$(($3 / 1000)):ts_rate_decimator=2,1:ts_periodicity=2:ts_layer_id=0,1
        $work/$1.nut"
}
# shellcheck disable=SC2046 # the options are words
$ff -f lavfi -i "testsrc2=size=640x360:rate=30:duration=$seconds" \
    -filter_complex "format=yuv420p,split=3[a][b][high];[a]scale=160:90:flags=bicubic[low];[b]scale=320:180:flags=bicubic[medium]" \
    $(vp8 low 72000 120000) $(vp8 medium 210000 350000) $(vp8 high 600000 1000000)
$ff -f lavfi -i "mandelbrot=size=640x360:rate=30:end_scale=0.02,trim=duration=$seconds" -pix_fmt yuv420p \
    -c:v libvpx-vp9 -deadline realtime -cpu-used 7 -threads 1 -lag-in-frames 0 -auto-alt-ref 0 -g 60 -b:v 400000 "$work/vp9.nut"
$ff -f lavfi -i "smptehdbars=size=640x360:rate=30:duration=$seconds,hue=H=t" -pix_fmt yuv420p \
    -vf "drawbox=x=mod(t*120\,600):y=100+60*sin(t*3):w=40:h=40:color=white:t=fill,noise=alls=6:allf=t:all_seed=7" \
    -c:v libx264 -profile:v baseline -preset veryfast -tune zerolatency -threads 1 -g 60 -b:v 500000 -maxrate 500000 -bufsize 250000 "$work/h264.nut"
$ff -f lavfi -i "aevalsrc=0.3*sin(2*PI*t*(330+110*floor(mod(t*4\,5))))|0.3*sin(2*PI*t*220)*(1-mod(t*2\,1)):sample_rate=48000:duration=$seconds" \
    -c:a libopus -application audio -frame_duration 20 -b:a 64000 "$work/opus.nut"

echo "recording"
cargo build --quiet --example record_rtp
recorder="$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/debug/examples/record_rtp"
# Timestamps near 2^32 and picture ids near 2^15 wrap within the recording, and so do the sequence numbers given below.
mkfifo "$work/ready"
"$recorder" --dir . \
    low=16002,ts:4294567296,vp8:32700/250 medium=16004,ts:4294567296,vp8:11873/17 high=16006,ts:4294567296,vp8:20411/133 \
    vp9=16008,ts:2871036449 h264=16010,ts:1190345718 opus=16012,ts:3301750923 >"$work/ready" &
exec 3<"$work/ready"
read -r line <&3 && test "$line" = listening

to() { # name, payload type, SSRC, first sequence number, port
    echo "-map $6 -c copy -f rtp -payload_type $2 -ssrc $3 -seq $4 -rtpflags send_bye -strict experimental rtp://127.0.0.1:$5?rtcpport=$5&pkt_size=1200"
}
# shellcheck disable=SC2046
$ff -re -i "$work/low.nut" -re -i "$work/medium.nut" -re -i "$work/high.nut" \
    -re -i "$work/vp9.nut" -re -i "$work/h264.nut" -re -i "$work/opus.nut" \
    $(to low 96 1008695810 51877 16002 0:v) $(to medium 96 1536353299 65100 16004 1:v) $(to high 96 381294337 64936 16006 2:v) \
    $(to vp9 98 731905516 30218 16008 3:v) -bsf:v dump_extra=freq=keyframe $(to h264 102 2024718113 7345 16010 4:v) \
    -frames:a $((seconds * 50)) $(to opus 111 1289440027 65280 16012 5:a) >/dev/null
cat <&3
wait
ls -l ./*.rtpdump
