//! The rtpdump file format of rtptools: packets with the moment each was seen.
//!
//! A file is a line of text, `#!rtpplay1.0 <address>/<port>\n`, a binary header of 16 bytes (start of the recording in
//! seconds and microseconds since 1970, source address, port, padding), then records: length of the record, length of
//! the original packet (0 for RTCP), offset from the start in milliseconds, then the packet. All numbers are
//! big-endian. The format knows IPv4 only.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

/// What the first line starts with.
const MAGIC: &[u8] = b"#!rtpplay1.0 ";
/// The longest first line that is believed: the magic, an IPv4 address and a port need 35 bytes.
const LINE_LEN_MAX: usize = 128;
const HEADER_LEN: usize = 16;
const RECORD_HEADER_LEN: usize = 8;
/// The longest packet a record can hold: its 16-bit length covers the record's own header.
pub const PACKET_LEN_MAX: usize = u16::MAX as usize - RECORD_HEADER_LEN;

/// A parsed file; borrows the bytes.
#[derive(Clone, Copy, Debug)]
pub struct Rtpdump<'a> {
    /// The address in the first line: where the packets came from or went to, as the recorder chose.
    pub address: SocketAddrV4,
    /// When the recording started, since 1970; offsets count from here.
    pub start: Duration,
    bytes: &'a [u8],
    records_at: usize,
}

/// One recorded packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// When, counted from the start of the recording; whole milliseconds.
    pub offset: Duration,
    /// RTP or RTCP.
    pub kind: RecordKind,
    /// The packet, or as much of it as the recorder kept.
    pub packet: &'a [u8],
}

/// What a record holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordKind {
    /// An RTP packet that was this long on the wire; a recorder may keep less of it.
    Rtp {
        /// Its whole length in bytes.
        len_original: u16,
    },
    /// A compound RTCP packet.
    Rtcp,
}

/// Why bytes are not an rtpdump file. Positions count from the start of the file.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RtpdumpError {
    /// The first line is another one, or there is none.
    #[error("not an rtpdump file: it does not start with \"#!rtpplay1.0 <address>/<port>\"")]
    NotRtpdump,
    /// The file ends inside the binary header.
    #[error("the file ends inside its header")]
    HeaderCut,
    /// The start time's microseconds are a second or more.
    #[error("the header's start time has {0} microseconds")]
    StartTime(u32),
    /// The file ends inside a record.
    #[error("the record at byte {at} needs {needed} bytes, {left} are left")]
    RecordCut {
        /// Where the record starts.
        at: usize,
        /// What it needs.
        needed: usize,
        /// What the file still has.
        left: usize,
    },
    /// A record is shorter than its own header.
    #[error("the record at byte {at} says it is {length} bytes long, shorter than its own header")]
    RecordTooShort {
        /// Where the record starts.
        at: usize,
        /// What it says.
        length: u16,
    },
    /// A record holds more of a packet than there was.
    #[error("the record at byte {at} holds {held} bytes of a packet of {original}")]
    MoreThanOriginal {
        /// Where the record starts.
        at: usize,
        /// Bytes held.
        held: usize,
        /// The packet's length.
        original: u16,
    },
}

impl<'a> Rtpdump<'a> {
    /// Parses the header. Records are parsed as they are asked for.
    ///
    /// # Errors
    /// When the bytes do not start as an rtpdump file does.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, RtpdumpError> {
        let line_len = bytes
            .iter()
            .take(LINE_LEN_MAX)
            .position(|&byte| byte == b'\n')
            .ok_or(RtpdumpError::NotRtpdump)?;
        let address = bytes[..line_len]
            .strip_prefix(MAGIC)
            .and_then(|text| std::str::from_utf8(text).ok())
            .and_then(|text| text.split_once('/'))
            .and_then(|(ip, port)| Some(SocketAddrV4::new(ip.parse().ok()?, port.parse().ok()?)))
            .ok_or(RtpdumpError::NotRtpdump)?;

        let header_at = line_len + 1;
        let header: &[u8; HEADER_LEN] = bytes[header_at..].first_chunk().ok_or(RtpdumpError::HeaderCut)?;
        let seconds = be_u32(header, 0);
        let micros = be_u32(header, 4);
        if micros >= 1_000_000 {
            return Err(RtpdumpError::StartTime(micros));
        }
        // The header repeats the address in binary. Recorders disagree about which of the two they fill in, so the text,
        // which names the format, is the one that counts.
        Ok(Self {
            address,
            start: Duration::new(u64::from(seconds), micros * 1_000),
            bytes,
            records_at: header_at + HEADER_LEN,
        })
    }

    /// The records, in the order of the file. After an error there are no more.
    pub fn records(&self) -> Records<'a> {
        Records {
            bytes: self.bytes,
            at: self.records_at,
        }
    }
}

/// Iterates over the records of a file.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Records<'a> {
    /// The record at `self.at`, which lies inside the file, and where the next one starts.
    fn parse_one(&self) -> Result<(Record<'a>, usize), RtpdumpError> {
        let at = self.at;
        let rest = &self.bytes[at..];
        let cut = |needed| RtpdumpError::RecordCut {
            at,
            needed,
            left: rest.len(),
        };
        let header: &[u8; RECORD_HEADER_LEN] = rest.first_chunk().ok_or_else(|| cut(RECORD_HEADER_LEN))?;
        let length = be_u16(header, 0);
        let len_original = be_u16(header, 2);
        let offset_ms = be_u32(header, 4);
        if usize::from(length) < RECORD_HEADER_LEN {
            return Err(RtpdumpError::RecordTooShort { at, length });
        }
        let packet = rest
            .get(RECORD_HEADER_LEN..usize::from(length))
            .ok_or_else(|| cut(usize::from(length)))?;
        let kind = match len_original {
            0 => RecordKind::Rtcp,
            _ if packet.len() > usize::from(len_original) => {
                return Err(RtpdumpError::MoreThanOriginal {
                    at,
                    held: packet.len(),
                    original: len_original,
                });
            }
            len_original => RecordKind::Rtp { len_original },
        };
        let record = Record {
            offset: Duration::from_millis(u64::from(offset_ms)),
            kind,
            packet,
        };
        Ok((record, at + usize::from(length)))
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, RtpdumpError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        match self.parse_one() {
            Ok((record, next_at)) => {
                self.at = next_at;
                Some(Ok(record))
            }
            Err(error) => {
                self.at = self.bytes.len();
                Some(Err(error))
            }
        }
    }
}

impl std::iter::FusedIterator for Records<'_> {}

/// Writes a file, record by record.
#[derive(Debug)]
pub struct RtpdumpWriter<W> {
    out: W,
}

impl<W: Write> RtpdumpWriter<W> {
    /// Writes the header. `start` counts from 1970; the format holds 32 bits of seconds and whole microseconds.
    ///
    /// # Errors
    /// When `out` fails, or with [`io::ErrorKind::InvalidInput`] for a start after the year 2106.
    pub fn new(mut out: W, address: SocketAddrV4, start: Duration) -> io::Result<Self> {
        let seconds = u32::try_from(start.as_secs()).map_err(|_| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "rtpdump cannot hold a start after the year 2106",
            )
        })?;
        let (ip, port): (&Ipv4Addr, u16) = (address.ip(), address.port());
        writeln!(out, "#!rtpplay1.0 {ip}/{port}")?;
        out.write_all(&seconds.to_be_bytes())?;
        out.write_all(&start.subsec_micros().to_be_bytes())?;
        out.write_all(&ip.octets())?;
        out.write_all(&port.to_be_bytes())?;
        out.write_all(&[0; 2])?;
        Ok(Self { out })
    }

    /// Adds a whole RTP packet seen at `offset` from the start.
    ///
    /// # Errors
    /// When `out` fails, or with [`io::ErrorKind::InvalidInput`] for what the format cannot hold: an empty packet or one
    /// of more than [`PACKET_LEN_MAX`] bytes, an offset of more than 49 days.
    pub fn write_rtp(&mut self, offset: Duration, packet: &[u8]) -> io::Result<()> {
        if packet.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "an empty packet reads as RTCP",
            ));
        }
        self.write_record(offset, packet, u16::try_from(packet.len()).unwrap_or(u16::MAX))
    }

    /// Adds a compound RTCP packet.
    ///
    /// # Errors
    /// As [`RtpdumpWriter::write_rtp`].
    pub fn write_rtcp(&mut self, offset: Duration, packet: &[u8]) -> io::Result<()> {
        self.write_record(offset, packet, 0)
    }

    /// Flushes and gives the writer back.
    ///
    /// # Errors
    /// When flushing fails.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }

    fn write_record(&mut self, offset: Duration, packet: &[u8], len_original: u16) -> io::Result<()> {
        let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidInput, what);
        if packet.len() > PACKET_LEN_MAX {
            return Err(invalid(format!(
                "a packet of {} bytes, rtpdump holds {PACKET_LEN_MAX}",
                packet.len()
            )));
        }
        let length = (packet.len() + RECORD_HEADER_LEN) as u16;
        let offset_ms = u32::try_from(offset.as_millis())
            .map_err(|_| invalid(format!("an offset of {offset:?}, rtpdump holds 49 days")))?;
        self.out.write_all(&length.to_be_bytes())?;
        self.out.write_all(&len_original.to_be_bytes())?;
        self.out.write_all(&offset_ms.to_be_bytes())?;
        self.out.write_all(packet)
    }
}

/// Reads a number out of a header whose length the caller has checked.
fn be_u32<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// As [`be_u32`].
fn be_u16<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ADDRESS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5004);

    fn sample() -> Vec<u8> {
        let mut writer = RtpdumpWriter::new(Vec::new(), ADDRESS, Duration::new(1_700_000_000, 250_000_000)).unwrap();
        writer.write_rtp(Duration::from_millis(0), &[0x80, 96, 0, 1]).unwrap();
        writer.write_rtcp(Duration::from_millis(7), &[0x80, 200, 0, 0]).unwrap();
        writer.write_rtp(Duration::from_micros(20_999), &[7; 1200]).unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn the_bytes_are_those_of_the_format() {
        let mut writer = RtpdumpWriter::new(Vec::new(), ADDRESS, Duration::new(1, 2_000)).unwrap();
        writer.write_rtp(Duration::from_millis(258), b"abc").unwrap();
        let expected: Vec<u8> = [
            b"#!rtpplay1.0 127.0.0.1/5004\n".as_slice(),
            &[0, 0, 0, 1, 0, 0, 0, 2, 127, 0, 0, 1, 0x13, 0x8c, 0, 0],
            &[0, 11, 0, 3, 0, 0, 1, 2],
            b"abc",
        ]
        .concat();
        assert_eq!(writer.finish().unwrap(), expected);
    }

    #[test]
    fn what_was_written_is_read() {
        let bytes = sample();
        let dump = Rtpdump::parse(&bytes).unwrap();
        assert_eq!(dump.address, ADDRESS);
        assert_eq!(dump.start, Duration::new(1_700_000_000, 250_000_000));
        let records: Vec<_> = dump.records().collect::<Result<_, _>>().unwrap();
        assert_eq!(
            records,
            [
                Record {
                    offset: Duration::ZERO,
                    kind: RecordKind::Rtp { len_original: 4 },
                    packet: &[0x80, 96, 0, 1],
                },
                Record {
                    offset: Duration::from_millis(7),
                    kind: RecordKind::Rtcp,
                    packet: &[0x80, 200, 0, 0],
                },
                Record {
                    offset: Duration::from_millis(20),
                    kind: RecordKind::Rtp { len_original: 1200 },
                    packet: &[7; 1200],
                },
            ]
        );
    }

    #[test]
    fn a_file_cut_at_any_length_is_an_error_or_a_shorter_recording() {
        let bytes = sample();
        let header_len = bytes.len() - (8 + 4) - (8 + 4) - (8 + 1200);
        let ends = [header_len, header_len + 12, header_len + 24, bytes.len()];
        for len in 0..=bytes.len() {
            let cut = &bytes[..len];
            if len < header_len {
                let error = Rtpdump::parse(cut).unwrap_err();
                assert!(
                    matches!(error, RtpdumpError::NotRtpdump | RtpdumpError::HeaderCut),
                    "{len}"
                );
                continue;
            }
            let read: Vec<_> = Rtpdump::parse(cut).unwrap().records().collect();
            let whole = ends.iter().filter(|&&end| end <= len).count() - 1;
            assert!(read[..whole].iter().all(Result::is_ok), "{len}");
            if ends.contains(&len) {
                assert_eq!(read.len(), whole, "{len}");
            } else {
                assert_eq!(read.len(), whole + 1, "{len}");
                assert!(matches!(read[whole], Err(RtpdumpError::RecordCut { .. })), "{len}");
            }
        }
    }

    #[test]
    fn lies_are_refused() {
        assert_eq!(Rtpdump::parse(b"").unwrap_err(), RtpdumpError::NotRtpdump);
        assert_eq!(Rtpdump::parse(&[b'#'; 4096]).unwrap_err(), RtpdumpError::NotRtpdump);
        assert_eq!(
            Rtpdump::parse(b"#!rtpplay1.0 nowhere/5004\n").unwrap_err(),
            RtpdumpError::NotRtpdump
        );
        let header = [b"#!rtpplay1.0 10.0.0.1/1\n".as_slice(), &[0; 16]].concat();
        let first = |record: &[u8]| {
            let bytes = [header.as_slice(), record].concat();
            let mut records = Rtpdump::parse(&bytes).unwrap().records();
            let first = records.next().unwrap().map(|record| record.packet.len());
            // An error ends the file; there is no way to find the next record.
            assert!(first.is_ok() || records.next().is_none());
            first
        };
        let at = header.len();
        assert_eq!(
            first(&[0, 7, 0, 1, 0, 0, 0, 0, 9]),
            Err(RtpdumpError::RecordTooShort { at, length: 7 })
        );
        assert_eq!(
            first(&[0, 10, 0, 1, 0, 0, 0, 0, 9, 9]),
            Err(RtpdumpError::MoreThanOriginal {
                at,
                held: 2,
                original: 1
            })
        );
        // A recorder that keeps headers only writes less than there was; that is no lie.
        assert_eq!(first(&[0, 9, 4, 0, 0, 0, 0, 0, 9]), Ok(1));
        let mut late = header.clone();
        late[24 + 4..24 + 8].copy_from_slice(&1_000_000u32.to_be_bytes());
        assert_eq!(Rtpdump::parse(&late).unwrap_err(), RtpdumpError::StartTime(1_000_000));
    }

    #[test]
    fn what_the_format_cannot_hold_is_not_written() {
        let mut writer = RtpdumpWriter::new(Vec::new(), ADDRESS, Duration::ZERO).unwrap();
        assert!(writer.write_rtp(Duration::ZERO, &[]).is_err());
        assert!(writer.write_rtp(Duration::ZERO, &vec![0; PACKET_LEN_MAX + 1]).is_err());
        assert!(writer.write_rtp(Duration::from_secs(50 * 86_400), &[1]).is_err());
        writer.write_rtp(Duration::ZERO, &vec![0; PACKET_LEN_MAX]).unwrap();
        assert!(RtpdumpWriter::new(Vec::new(), ADDRESS, Duration::from_secs(1 << 33)).is_err());
        let bytes = writer.finish().unwrap();
        let read: Vec<_> = Rtpdump::parse(&bytes).unwrap().records().collect();
        assert_eq!(read.len(), 1);
    }

    proptest! {
        #[test]
        fn garbage_never_panics_and_never_loops(tail in proptest::collection::vec(any::<u8>(), 0..600), cut in 0usize..48) {
            let whole = [b"#!rtpplay1.0 1.2.3.4/5\n".as_slice(), &[0; 16], &tail].concat();
            for bytes in [tail.as_slice(), &whole, &whole[cut.min(whole.len())..]] {
                if let Ok(dump) = Rtpdump::parse(bytes) {
                    prop_assert!(dump.records().count() <= bytes.len() / RECORD_HEADER_LEN + 1);
                }
            }
        }
    }
}
