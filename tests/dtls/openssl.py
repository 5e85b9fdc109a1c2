"""DTLS peers with OpenSSL, many at once in one process.

The first line of input is JSON, a list of peers: for each the port it speaks to, its role, its MTU, the files of its certificate
and key, and how many seconds it waits before it begins, so that they do not all compute at once. A peer first sends one byte that
is no DTLS, so that the other end knows where it is. Each line of output is the JSON of how a handshake ended. The peers stay, to
repeat their last flights, until the input ends.
"""

import asyncio
import hashlib
import json
import socket
import sys

from OpenSSL import SSL
from OpenSSL.crypto import FILETYPE_ASN1, dump_certificate

# SSL_CTX_set_max_proto_version's number for DTLS 1.2.
DTLS1_2_VERSION = 0xFEFD
PROFILES = b"SRTP_AES128_CM_SHA1_80:SRTP_AEAD_AES_128_GCM"
EXPORTER = b"EXTRACTOR-dtls_srtp"
# The longest that a profile of PROFILES needs (RFC 5764 §4.1.2).
EXPORTED_BYTES = 60
# The longest datagram that loopback carries.
DATAGRAM_BYTES_MAX = 65_535


def context(job):
    made = SSL.Context(SSL.DTLS_METHOD)
    made.set_min_proto_version(DTLS1_2_VERSION)
    made.set_max_proto_version(DTLS1_2_VERSION)
    made.set_options(SSL.OP_NO_QUERY_MTU)
    # Strangers' certificates are what WebRTC is made of: asked for, and taken whatever they say.
    made.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
    made.use_certificate_file(job["certificate"])
    made.use_privatekey_file(job["key"])
    made.set_tlsext_use_srtp(PROFILES)
    return made


class Peer:
    """One end of one handshake."""

    def __init__(self, number, job):
        self.number = number
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.socket.connect(("127.0.0.1", job["port"]))
        self.socket.setblocking(False)
        # A socket rather than a buffer in memory: OpenSSL itself says where a datagram ends.
        self.connection = SSL.Connection(context(job), self.socket)
        self.connection.set_ciphertext_mtu(job["mtu"])
        if job["role"] == "client":
            self.connection.set_connect_state()
        else:
            self.connection.set_accept_state()
        self.done = False
        self.timer = None

    def start(self):
        self.socket.send(b"\0")
        asyncio.get_running_loop().add_reader(self.socket, self.step)
        self.step()

    def step(self):
        try:
            if not self.done:
                self.connection.do_handshake()
                self.done = True
                self.tell(None)
            # What comes now are records of a flight that was lost; OpenSSL answers it with its own.
            while True:
                self.connection.recv(DATAGRAM_BYTES_MAX)
        except SSL.WantReadError:
            self.arm()
        except SSL.Error as error:
            self.end(repr(error))
        except OSError as error:
            self.end(repr(error))

    def arm(self):
        if self.timer:
            self.timer.cancel()
        left = self.connection.DTLSv1_get_timeout()
        self.timer = None if left is None else asyncio.get_running_loop().call_later(left, self.repeat)

    def repeat(self):
        try:
            self.connection.DTLSv1_handle_timeout()
        except SSL.Error as error:
            self.end(repr(error))
        else:
            self.step()

    def end(self, error):
        asyncio.get_running_loop().remove_reader(self.socket)
        if self.timer:
            self.timer.cancel()
        if not self.done:
            self.done = True
            self.tell(error)

    def tell(self, error):
        said = {"peer": self.number, "error": error}
        if error is None:
            certificate = dump_certificate(FILETYPE_ASN1, self.connection.get_peer_certificate())
            said["fingerprint"] = hashlib.sha256(certificate).hexdigest()
            said["profile"] = self.connection.get_selected_srtp_profile().decode()
            said["exported"] = self.connection.export_keying_material(EXPORTER, EXPORTED_BYTES).hex()
        print(json.dumps(said), flush=True)


async def main():
    loop = asyncio.get_running_loop()
    for number, job in enumerate(json.loads(sys.stdin.readline())):
        loop.call_later(job["after"], Peer(number, job).start)
    await loop.run_in_executor(None, sys.stdin.read)


asyncio.run(main())
