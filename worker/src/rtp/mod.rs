//! Views over bytes: RTP and RTCP packets, header extensions, sequence numbers, codec payload descriptors.
