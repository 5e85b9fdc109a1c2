//! Texts of messages (pure). What many clients are told is one text in memory, of which each of their messages has a part.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::server::{ClientMemory, HeldInCommon, lock};

/// Shorter texts are not shared: that would take more memory than they do.
const SHARED_MIN: usize = 256;

/// A message's text, in parts.
#[derive(Clone, Debug)]
pub(super) struct Text(Arc<[Part]>);

#[derive(Clone, Debug)]
enum Part {
    Own(Bytes),
    Shared(Arc<SharedText>),
}

impl Part {
    /// It may be kept for long, so it takes no more memory than it has bytes.
    fn own(text: String) -> Self {
        Self::Own(text.into_boxed_str().into_boxed_bytes().into())
    }

    fn bytes(&self) -> &Bytes {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(shared) => &shared.bytes,
        }
    }
}

impl Text {
    /// Its length in bytes.
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|part| part.bytes().len()).sum()
    }

    /// The bytes of it that no other message has.
    pub(super) fn own_bytes(&self) -> usize {
        let own = |part: &Part| matches!(part, Part::Own(_)).then(|| part.bytes().len());
        self.0.iter().filter_map(own).sum()
    }

    /// All of it, in pieces of so many bytes, of which the last may be shorter. A piece that lies within a part is not copied.
    pub(super) fn pieces(&self, bytes_max: usize) -> impl Iterator<Item = Bytes> + Send {
        let parts = Arc::clone(&self.0);
        let (mut next_part, mut rest) = (0, Bytes::new());
        std::iter::from_fn(move || {
            let mut piece = BytesMut::new();
            loop {
                while rest.is_empty() {
                    let Some(part) = parts.get(next_part) else {
                        return (!piece.is_empty()).then(|| piece.freeze());
                    };
                    rest = part.bytes().clone();
                    next_part += 1;
                }
                if piece.is_empty() && rest.len() >= bytes_max {
                    return Some(rest.split_to(bytes_max));
                }
                piece.extend_from_slice(&rest.split_to(rest.len().min(bytes_max - piece.len())));
                if piece.len() == bytes_max {
                    return Some(piece.freeze());
                }
            }
        })
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(Arc::new([Part::own(text)]))
    }
}

#[cfg(test)]
impl std::fmt::Display for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0
            .iter()
            .try_for_each(|part| f.write_str(std::str::from_utf8(part.bytes()).unwrap()))
    }
}

/// A text of JSON that several messages have, counted once for all of them.
#[derive(Debug)]
pub(super) struct SharedText {
    bytes: Bytes,
    _counted: HeldInCommon,
}

/// The shared texts that there are, by the values that they are made of.
#[derive(Debug)]
pub(super) struct SharedTexts {
    memory: Arc<ClientMemory>,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// By the value's address. It is no other value's as long as somebody refers to it, which this does.
    texts: HashMap<usize, (Weak<Value>, Weak<SharedText>)>,
    /// So many there may be before those are looked for that nobody has any more.
    texts_max: usize,
}

impl SharedTexts {
    /// What there is counts as held of `memory`.
    pub(super) fn new(memory: &Arc<ClientMemory>) -> Self {
        Self {
            memory: Arc::clone(memory),
            table: Mutex::default(),
        }
    }

    /// The text of a value; `Err`: it is too short to be shared.
    fn of(&self, value: &Arc<Value>) -> Result<Arc<SharedText>, String> {
        let address = Arc::as_ptr(value).addr();
        let mut table = lock(&self.table);
        if let Some(known) = table.texts.get(&address).and_then(|(_, text)| text.upgrade()) {
            return Ok(known);
        }
        let text = value.to_string();
        if text.len() < SHARED_MIN {
            return Err(text);
        }
        if table.texts.len() >= table.texts_max {
            table.texts.retain(|_, (_, text)| text.strong_count() > 0);
            table.texts_max = 2 * table.texts.len() + 64;
        }
        let shared = Arc::new(SharedText {
            _counted: self.memory.hold_in_common(text.len()),
            bytes: text.into_boxed_str().into_boxed_bytes().into(),
        });
        let known = (Arc::downgrade(value), Arc::downgrade(&shared));
        table.texts.insert(address, known);
        Ok(shared)
    }
}

/// Writes a text.
pub(super) struct TextWriter<'a> {
    shared: &'a SharedTexts,
    parts: Vec<Part>,
    own: String,
}

impl<'a> TextWriter<'a> {
    pub(super) fn new(shared: &'a SharedTexts) -> Self {
        Self {
            shared,
            parts: Vec::new(),
            own: String::new(),
        }
    }

    /// What is JSON already, or a part of it.
    pub(super) fn raw(&mut self, json: &str) -> &mut Self {
        self.own.push_str(json);
        self
    }

    pub(super) fn value(&mut self, value: &impl Serialize) -> &mut Self {
        // Of types that all have a JSON form.
        self.raw(&serde_json::to_string(value).unwrap_or_default())
    }

    /// A value that others are told, too.
    pub(super) fn shared(&mut self, value: &Arc<Value>) -> &mut Self {
        match self.shared.of(value) {
            Ok(text) => {
                let own = std::mem::take(&mut self.own);
                self.parts.extend([Part::own(own), Part::Shared(text)]);
                self
            }
            Err(text) => self.raw(&text),
        }
    }

    /// An object with these members and one more, whose value others are told, too.
    pub(super) fn object(&mut self, members: &Map<String, Value>, name: &str, value: &Arc<Value>) -> &mut Self {
        let members = serde_json::to_string(members).unwrap_or_default();
        let open = members.strip_suffix('}').unwrap_or("{");
        let comma = if open == "{" { "" } else { "," };
        self.raw(open).raw(comma).value(&name).raw(":").shared(value).raw("}")
    }

    pub(super) fn finish(self) -> Text {
        let mut parts = self.parts;
        parts.push(Part::own(self.own));
        Text(parts.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn texts() -> (Arc<ClientMemory>, SharedTexts) {
        let memory = Arc::new(ClientMemory::default());
        let texts = SharedTexts::new(&memory);
        (memory, texts)
    }

    #[test]
    fn what_many_are_told_is_there_once_and_only_as_long_as_somebody_is_told() {
        let (memory, texts) = texts();
        let app_data = Arc::new(json!("x".repeat(8_000)));
        let message = |number: u64| {
            let mut writer = TextWriter::new(&texts);
            let members = json!({"seq": number});
            writer.object(members.as_object().unwrap(), "appData", &app_data);
            writer.finish()
        };
        let messages: Vec<Text> = (0..100).map(message).collect();
        assert_eq!(memory.bytes(), 8_002);
        for (number, message) in messages.iter().enumerate() {
            let read: Value = serde_json::from_str(&message.to_string()).unwrap();
            assert_eq!(read, json!({"seq": number, "appData": *app_data}));
            assert!(message.own_bytes() < 40 && message.len() > 8_000);
        }
        drop(messages);
        assert_eq!(memory.bytes(), 0);
        // Made anew, and again there once.
        let (first, second) = (message(1), message(2));
        assert_eq!(memory.bytes(), 8_002);
        drop((first, second));
        assert_eq!(memory.bytes(), 0);
    }

    #[test]
    fn nothing_is_kept_of_values_that_are_gone() {
        let (memory, texts) = texts();
        for number in 0..10_000 {
            let value = Arc::new(json!(format!("{number}{}", "x".repeat(1_000))));
            let text = TextWriter::new(&texts)
                .shared(&value)
                .value(&number)
                .raw("")
                .len_of_parts();
            assert_eq!(text, 1_004 + number.to_string().len() * 2 - 2);
        }
        assert_eq!(memory.bytes(), 0);
        assert!(lock(&texts.table).texts.len() <= 64);
    }

    impl TextWriter<'_> {
        fn len_of_parts(&self) -> usize {
            self.parts.iter().map(|part| part.bytes().len()).sum::<usize>() + self.own.len()
        }
    }

    #[test]
    fn a_part_takes_no_more_memory_than_it_has_bytes() {
        let (_, texts) = texts();
        let mut writer = TextWriter::new(&texts);
        let long = "z".repeat(3_000);
        writer
            .raw("{")
            .value(&long)
            .raw("}")
            .shared(&Arc::new(json!(long)))
            .raw("{")
            .value(&long)
            .raw("}");
        let text = writer.finish();
        let bytes: Vec<Bytes> = text.0.iter().map(|part| part.bytes().clone()).collect();
        drop(text);
        for bytes in bytes {
            let taken = Vec::from(bytes);
            assert_eq!(taken.capacity(), taken.len());
        }
    }

    #[test]
    fn short_values_are_written_out() {
        let (memory, texts) = texts();
        let mut writer = TextWriter::new(&texts);
        writer.object(&Map::new(), "appData", &Arc::new(json!({"a": [1]})));
        let text = writer.finish();
        assert_eq!(
            (text.to_string().as_str(), memory.bytes()),
            (r#"{"appData":{"a":[1]}}"#, 0)
        );
        assert_eq!(text.own_bytes(), text.len());
    }

    #[test]
    fn pieces_are_the_text_whatever_their_size() {
        let (_, texts) = texts();
        let shared = Arc::new(json!("y".repeat(700)));
        let mut writer = TextWriter::new(&texts);
        writer.raw("[").shared(&shared).raw(",").shared(&shared).raw("]");
        let text = writer.finish();
        let whole = text.to_string();
        for size in [1, 2, 3, 100, 701, 702, 703, 1_000, 5_000] {
            let pieces: Vec<Bytes> = text.pieces(size).collect();
            assert_eq!(pieces.concat(), whole.as_bytes(), "{size}");
            let (last, others) = pieces.split_last().unwrap();
            assert!(others.iter().all(|piece| piece.len() == size) && (1..=size).contains(&last.len()));
        }
        assert_eq!(Text::from(String::new()).pieces(10).count(), 0);
    }
}
