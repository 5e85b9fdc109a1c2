"""DTLS peers with GnuTLS, many at once in one process.

It reads and writes what openssl.py beside it does. GnuTLS has no Python module of its own; these are its C functions, and each
peer is a thread that waits as GnuTLS itself waits.
"""

import ctypes
import hashlib
import json
import socket
import sys
import threading
import time

gnutls = ctypes.CDLL("libgnutls.so.30")
gnutls.gnutls_strerror.restype = ctypes.c_char_p
gnutls.gnutls_record_recv.restype = ctypes.c_ssize_t

# From gnutls/gnutls.h.
SERVER, CLIENT, DATAGRAM = 1, 2, 4
X509_FORMAT_PEM = 1
CREDENTIALS_CERTIFICATE = 1
CERTIFICATE_REQUIRE = 2
E_AGAIN = -28

# What GnuTLS does unless told otherwise (ffmpeg leaves it at that too), without the DTLS versions that WebRTC has not.
PRIORITY = b"NORMAL:-VERS-ALL:+VERS-DTLS1.2"
# AES-GCM for SRTP is not in GnuTLS.
PROFILE = b"SRTP_AES128_CM_HMAC_SHA1_80"
EXPORTER = b"EXTRACTOR-dtls_srtp"
EXPORTED_BYTES = 60
# GnuTLS repeats a flight after a second, then after twice as long, and gives up after a minute, if nobody changes that.
REPEAT_MS, GIVE_UP_MS = 1_000, 60_000
DATAGRAM_BYTES_MAX = 65_535


class Datum(ctypes.Structure):
    _fields_ = [("data", ctypes.POINTER(ctypes.c_ubyte)), ("size", ctypes.c_uint)]


gnutls.gnutls_certificate_get_peers.restype = ctypes.POINTER(Datum)


class GnutlsError(Exception):
    pass


def check(code):
    if code < 0:
        raise GnutlsError(f"{code}: {gnutls.gnutls_strerror(code).decode()}")
    return code


speaking = threading.Lock()


def tell(said):
    with speaking:
        print(json.dumps(said), flush=True)


def session_of(job, transport):
    credentials, session = ctypes.c_void_p(), ctypes.c_void_p()
    check(gnutls.gnutls_certificate_allocate_credentials(ctypes.byref(credentials)))
    files = (job["certificate"].encode(), job["key"].encode())
    check(gnutls.gnutls_certificate_set_x509_key_file(credentials, *files, X509_FORMAT_PEM))
    role = CLIENT if job["role"] == "client" else SERVER
    check(gnutls.gnutls_init(ctypes.byref(session), role | DATAGRAM))
    check(gnutls.gnutls_priority_set_direct(session, PRIORITY, None))
    check(gnutls.gnutls_credentials_set(session, CREDENTIALS_CERTIFICATE, credentials))
    if role == SERVER:
        gnutls.gnutls_certificate_server_set_request(session, CERTIFICATE_REQUIRE)
    check(gnutls.gnutls_srtp_set_profile_direct(session, PROFILE, None))
    gnutls.gnutls_transport_set_int2(session, transport.fileno(), transport.fileno())
    gnutls.gnutls_dtls_set_mtu(session, job["mtu"])
    gnutls.gnutls_dtls_set_timeouts(session, REPEAT_MS, GIVE_UP_MS)
    return session


def shake_hands(session):
    while True:
        code = gnutls.gnutls_handshake(session)
        if code == 0:
            return
        if code != E_AGAIN and gnutls.gnutls_error_is_fatal(code):
            check(code)


def outcome(session):
    count = ctypes.c_uint()
    certificates = gnutls.gnutls_certificate_get_peers(session, ctypes.byref(count))
    if not count.value:
        raise GnutlsError("the other end has shown no certificate")
    certificate = ctypes.string_at(certificates[0].data, certificates[0].size)
    exported = ctypes.create_string_buffer(EXPORTED_BYTES)
    label = (ctypes.c_size_t(len(EXPORTER)), EXPORTER, ctypes.c_size_t(0), None)
    check(gnutls.gnutls_prf_rfc5705(session, *label, ctypes.c_size_t(EXPORTED_BYTES), exported))
    profile = ctypes.c_int()
    check(gnutls.gnutls_srtp_get_selected_profile(session, ctypes.byref(profile)))
    gnutls.gnutls_srtp_get_profile_name.restype = ctypes.c_char_p
    return {
        "fingerprint": hashlib.sha256(certificate).hexdigest(),
        "profile": gnutls.gnutls_srtp_get_profile_name(profile).decode(),
        "exported": exported.raw.hex(),
    }


def run(number, job):
    transport = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    transport.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    transport.connect(("127.0.0.1", job["port"]))
    time.sleep(job["after"])
    try:
        session = session_of(job, transport)
        transport.send(b"\0")
        shake_hands(session)
        tell({"peer": number, "error": None, **outcome(session)})
    except GnutlsError as error:
        tell({"peer": number, "error": str(error)})
        return
    # What comes now are records of a flight that was lost; GnuTLS answers it with its own.
    data = ctypes.create_string_buffer(DATAGRAM_BYTES_MAX)
    while not gnutls.gnutls_error_is_fatal(gnutls.gnutls_record_recv(session, data, DATAGRAM_BYTES_MAX)):
        pass


threading.stack_size(512 << 10)
for number, job in enumerate(json.loads(sys.stdin.readline())):
    threading.Thread(target=run, args=(number, job), daemon=True).start()
sys.stdin.read()
