//! The part of the event stream format (HTML standard §9.2) that a client of `GET /events` needs.

/// Longest line that is read. An event with the largest `appData` has about 300 KiB.
const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What a stream brings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Event {
    /// The `data` of an event.
    Message(String),
    /// A line that says nothing but that the stream is alive.
    Comment(String),
}

/// Puts events together from bytes that arrive in any portions.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    line: Vec<u8>,
    id: Option<String>,
    data: Option<String>,
    after_cr: bool,
}

impl Decoder {
    /// The id to go on after, should the stream break off now.
    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The events that these bytes complete.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Event>, &'static str> {
        let mut events = Vec::new();
        for &byte in bytes {
            // A line ends with CR LF, LF or CR.
            match byte {
                b'\n' if self.after_cr => {}
                b'\n' | b'\r' => events.extend(self.end_line()),
                _ if self.line.len() == LINE_BYTES_MAX => return Err("an event has a line without end"),
                _ => self.line.push(byte),
            }
            self.after_cr = byte == b'\r';
        }
        Ok(events)
    }

    fn end_line(&mut self) -> Option<Event> {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        if line.is_empty() {
            return self.data.take().map(Event::Message);
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => return Some(Event::Comment(value.to_owned())),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            "id" => self.id = Some(value.to_owned()),
            // The type is in the data too.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str =
        ": following\n\nid: a-1\nevent: roomOpened\ndata: {\"room\":1}\n\n:\r\n\r\ndata:x\rdata: y\r\rdata: cut";

    fn expected() -> Vec<Event> {
        vec![
            Event::Comment("following".to_owned()),
            Event::Message("{\"room\":1}".to_owned()),
            Event::Comment(String::new()),
            Event::Message("x\ny".to_owned()),
        ]
    }

    #[test]
    fn a_stream_is_the_same_in_any_portions() {
        for size in 1..=STREAM.len() {
            let mut decoder = Decoder::default();
            let portions = STREAM.as_bytes().chunks(size);
            let events: Vec<_> = portions.flat_map(|portion| decoder.feed(portion).unwrap()).collect();
            assert_eq!(events, expected(), "in portions of {size}");
            assert_eq!(decoder.id(), Some("a-1"));
        }
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut decoder = Decoder::default();
        assert!(decoder.feed(&vec![b'x'; LINE_BYTES_MAX]).unwrap().is_empty());
        assert!(decoder.feed(b"x").is_err());
    }
}
