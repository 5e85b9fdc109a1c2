//! RTP header extensions: RFC 8285 §4, clause by clause, and properties of the walk.

use proptest::prelude::*;
use weir_worker::rtp::extension::{Element, ExtensionBlock, Form, Walk, elements, erase, rename};

fn block(start: usize, bytes: &[u8], form: Form) -> ExtensionBlock {
    ExtensionBlock {
        start: start as u16,
        len: (bytes.len() - start) as u16,
        form,
    }
}

fn walked(bytes: &[u8], block: ExtensionBlock) -> Vec<(u8, &[u8])> {
    elements(bytes, block)
        .map(|element| (element.id, element.value(bytes)))
        .collect()
}

#[test]
fn rfc8285_4_2_one_byte_form_example() {
    // The figure of the section: lengths 0, 1 and 3 (of one, two and four bytes), padding before the third.
    let bytes = [0x30, 0xa1, 0x51, 0xb1, 0xb2, 0, 0, 0x73, 0xc1, 0xc2, 0xc3, 0xc4];
    assert_eq!(
        walked(&bytes, block(0, &bytes, Form::OneByte)),
        [
            (3, [0xa1].as_slice()),
            (5, &[0xb1, 0xb2]),
            (7, &[0xc1, 0xc2, 0xc3, 0xc4])
        ]
    );
}

#[test]
fn rfc8285_4_3_two_byte_form_example() {
    // The figure of the section: lengths 0, 1 and 4, padding before the third.
    let bytes = [3, 0, 5, 1, 0xb1, 0, 7, 4, 0xc1, 0xc2, 0xc3, 0xc4];
    assert_eq!(
        walked(&bytes, block(0, &bytes, Form::TwoByte)),
        [(3, [].as_slice()), (5, &[0xb1]), (7, &[0xc1, 0xc2, 0xc3, 0xc4])]
    );
}

#[test]
fn rfc8285_4_1_2_id_zero_with_a_length_terminates() {
    let bytes = [0x30, 1, 0x02, 9, 9, 9, 0x40, 2];
    assert_eq!(walked(&bytes, block(0, &bytes, Form::OneByte)), [(3, [1].as_slice())]);
}

#[test]
fn rfc8285_4_2_id_fifteen_terminates_and_its_length_is_ignored() {
    for length in 0..16 {
        let bytes = [0x30, 1, 0xf0 | length, 9, 0x40, 2, 0, 0];
        assert_eq!(walked(&bytes, block(0, &bytes, Form::OneByte)), [(3, [1].as_slice())]);
    }
}

#[test]
fn rfc8285_4_3_application_bits_do_not_matter() {
    assert_eq!(Form::of_profile(0xbede), Form::OneByte);
    for application_bits in 0..16 {
        assert_eq!(Form::of_profile(0x1000 | application_bits), Form::TwoByte);
    }
    for profile in [0, 0x0fff, 0x1010, 0xbedd, 0xbedf, 0xffff] {
        assert_eq!(Form::of_profile(profile), Form::Unknown);
    }
}

fn form() -> impl Strategy<Value = Form> {
    prop_oneof![Just(Form::OneByte), Just(Form::TwoByte), Just(Form::Unknown)]
}

/// Elements as a sender means them, and padding: `None`.
fn meant(form: Form) -> impl Strategy<Value = Vec<Option<(u8, Vec<u8>)>>> {
    let element = match form {
        Form::OneByte => (1u8..=14, prop::collection::vec(any::<u8>(), 1..=16)),
        _ => (1u8..=255, prop::collection::vec(any::<u8>(), 0..=255)),
    };
    prop::collection::vec(prop::option::weighted(0.8, element), 0..10)
}

fn written(form: Form, meant: &[Option<(u8, Vec<u8>)>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for element in meant {
        match (form, element) {
            (_, None) => bytes.push(0),
            (Form::OneByte, Some((id, value))) => {
                bytes.push(id << 4 | (value.len() - 1) as u8);
                bytes.extend(value);
            }
            (_, Some((id, value))) => {
                bytes.extend([*id, value.len() as u8]);
                bytes.extend(value);
            }
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_walk_stays_in_the_block(
        bytes in prop::collection::vec(any::<u8>(), 0..120),
        start in 0usize..130,
        len in 0usize..130,
        form in form(),
    ) {
        let block = ExtensionBlock { start: start as u16, len: len as u16, form };
        let mut at = start;
        for Element { id, header, value, len: value_len } in elements(&bytes, block) {
            let (header, value) = (usize::from(header), usize::from(value));
            prop_assert!(header >= at && value > header);
            prop_assert_ne!(id, 0);
            at = value + usize::from(value_len);
            prop_assert!(at <= start + len && at <= bytes.len());
        }
    }

    #[test]
    fn what_was_written_is_read(
        (form, meant) in prop_oneof![Just(Form::OneByte), Just(Form::TwoByte)]
            .prop_flat_map(|form| (Just(form), meant(form))),
        front in 0usize..40,
    ) {
        let mut bytes = vec![0xee; front];
        bytes.extend(written(form, &meant));
        let block = block(front, &bytes, form);
        bytes.extend([0x1f, 0xff, 0xff]);
        let expected: Vec<_> = meant.iter().flatten().map(|(id, value)| (*id, value.as_slice())).collect();
        prop_assert_eq!(walked(&bytes, block), expected);
    }

    #[test]
    fn elements_change_while_they_are_walked(
        (form, meant) in prop_oneof![Just(Form::OneByte), Just(Form::TwoByte)]
            .prop_flat_map(|form| (Just(form), meant(form))),
    ) {
        // Odd ids go, even ones move up by one, except that 14 cannot.
        let fate = |id: u8| if id.is_multiple_of(2) && (id != 14 || form == Form::TwoByte) { id + 1 } else { 0 };
        let mut bytes = written(form, &meant);
        let block = block(0, &bytes, form);
        let mut walk = Walk::through(block);
        while let Some(element) = walk.next(&bytes) {
            match fate(element.id) {
                0 => erase(&mut bytes, element),
                id => rename(&mut bytes, form, element, id),
            }
        }
        let expected: Vec<_> = meant
            .iter()
            .flatten()
            .filter(|(id, _)| fate(*id) != 0)
            .map(|(id, value)| (fate(*id), value.as_slice()))
            .collect();
        prop_assert_eq!(walked(&bytes, block), expected);
    }

    #[test]
    fn changing_an_element_touches_nothing_else(
        bytes in prop::collection::vec(any::<u8>(), 4..60),
        form in form(),
        id in any::<u8>(),
    ) {
        let block = block(0, &bytes, form);
        for element in elements(&bytes, block) {
            let (header, value) = (usize::from(element.header), usize::from(element.value));
            let end = value + usize::from(element.len);

            let mut renamed = bytes.clone();
            rename(&mut renamed, form, element, id);
            prop_assert_eq!(&renamed[..header], &bytes[..header]);
            prop_assert_eq!(&renamed[end..], &bytes[end..]);

            let mut erased = bytes.clone();
            erase(&mut erased, element);
            prop_assert_eq!(&erased[..header], &bytes[..header]);
            prop_assert!(erased[header..end].iter().all(|byte| *byte == 0));
            prop_assert_eq!(&erased[end..], &bytes[end..]);
            prop_assert_eq!(walked(&erased, block).len() + 1, walked(&bytes, block).len());
        }
    }
}
