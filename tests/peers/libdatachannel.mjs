// libdatachannel as a peer: sends sound on one connection, and counts what it is sent on another.
//
//     node libdatachannel.mjs [CERTIFICATE KEY]
//
// Each line of its output is JSON: its offer, its answer to the other connection's offer, and how many packets it has received so
// far that are what was sent. Each line of its input is JSON too: the answer, and then the offer. It ends when its input does.

import { createInterface } from 'node:readline'
import datachannel from 'node-datachannel'

const OPUS = 111
const SSRC = 4242
const SAMPLES = 960
const PAYLOAD = Buffer.from('this stands for twenty milliseconds of sound')
const HEADER_BYTES = 12

const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`)

const [certificatePemFile, keyPemFile] = process.argv.slice(2)
const options = {
  iceServers: [],
  bindAddress: '127.0.0.1',
  disableAutoNegotiation: true,
  forceMediaTransport: true,
  ...(certificatePemFile ? { certificatePemFile, keyPemFile } : {}),
}

function connection(name, kind) {
  const made = new datachannel.PeerConnection(name, options)
  // With all candidates in it.
  made.onGatheringStateChange((state) => {
    if (state === 'complete') say({ [kind]: made.localDescription().sdp })
  })
  return made
}

const sending = connection('sending', 'offer')
const audio = new datachannel.Audio('0', 'SendOnly')
audio.addOpusCodec(OPUS)
audio.addSSRC(SSRC, 'peer')
const track = sending.addTrack(audio)
sending.setLocalDescription('offer')

const receiving = connection('receiving', 'answer')
const tracks = []
let received = 0
receiving.onTrack((arriving) => {
  tracks.push(arriving)
  arriving.onMessage((packet) => {
    const isMedia = (packet[1] & 0x7f) === OPUS
    if (isMedia && packet.subarray(-PAYLOAD.length).equals(PAYLOAD)) received += 1
  })
})

let sequence = 0
setInterval(() => {
  if (!track.isOpen()) return
  const header = Buffer.alloc(HEADER_BYTES)
  header[0] = 0x80
  header[1] = OPUS
  header.writeUInt16BE(sequence & 0xffff, 2)
  header.writeUInt32BE((sequence * SAMPLES) >>> 0, 4)
  header.writeUInt32BE(SSRC, 8)
  track.sendMessageBinary(Buffer.concat([header, PAYLOAD]))
  sequence += 1
}, 20)
setInterval(() => say({ received }), 200)

createInterface({ input: process.stdin })
  .on('line', (line) => {
    const { answer, offer } = JSON.parse(line)
    if (answer) sending.setRemoteDescription(answer, 'answer')
    if (offer) {
      receiving.setRemoteDescription(offer, 'offer')
      receiving.setLocalDescription('answer')
    }
  })
  .on('close', () => process.exit(0))
