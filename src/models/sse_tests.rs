use proptest::prelude::*;

use super::*;

/// The data of every event of these pieces.
fn parse<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
    let mut parser = Parser::default();
    let mut events = Vec::new();
    for mut piece in pieces {
        while let Some(data) = parser.next(&mut piece).unwrap() {
            events.push(String::from_utf8_lossy(data).into_owned());
        }
    }
    events
}

#[test]
fn m3_events_are_read_as_the_standard_has_them() {
    let table: [(&str, &[&str]); 17] = [
        ("data: one\n\ndata: two\n\n", &["one", "two"]),
        ("data: one\r\n\r\ndata: two\r\n\r\n", &["one", "two"]),
        ("data: one\r\rdata: two\r\r", &["one", "two"]),
        ("data: one\r\n\ndata: two\n\r\n", &["one", "two"]),
        // One space is the format's; the next is the data's.
        ("data:one\n\ndata:  two\n\n", &["one", " two"]),
        ("data: one\ndata: two\n\n", &["one\ntwo"]),
        ("data: one\ndata:\ndata\n\n", &["one\n\n"]),
        ("data\n\n", &[""]),
        ("\u{feff}data: one\n\n", &["one"]),
        // Only at the very beginning.
        ("\n\u{feff}data: one\n\n", &[]),
        (
            ": keep-alive\n\n\n\n: keep-alive\n\ndata: one\n\n",
            &["one"],
        ),
        ("event: ping\nid: 1\nretry: 5\ndata: one\n\n", &["one"]),
        ("event: nothing\n\n", &[]),
        ("database: one\nDATA: two\n data: three\n\n", &[]),
        // What isn't ended by a blank line never happened.
        ("data: one\n\ndata: two\n", &["one"]),
        ("data: one", &[]),
        ("", &[]),
    ];
    for (text, expected) in table {
        assert_eq!(parse([text.as_bytes()]), expected, "{text:?}");
    }
}

#[test]
fn m3_an_event_larger_than_the_limit_is_an_error_however_it_comes() {
    let piece = [b'a'; 1000];
    let one_line = || std::iter::repeat(&piece[..]);
    let lines = || std::iter::repeat(&b"data: a\n"[..]);
    let small = || std::iter::repeat(&b"data: a\n\n: and a comment\n"[..]);
    let sent = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut parser = Parser::default();
        for mut piece in pieces.take(LIMIT) {
            loop {
                match parser.next(&mut piece) {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(TooLarge) => return false,
                }
                assert!(parser.line.len() + parser.data.len() <= LIMIT + 1);
            }
        }
        true
    };
    assert!(!sent(&mut one_line()));
    assert!(!sent(&mut lines()));
    assert!(sent(&mut small()));
}

proptest! {
    #[test]
    fn m3_a_split_anywhere_changes_nothing(
        // The bytes that mean something, and a character of two bytes.
        pieces in prop::collection::vec(
            prop::sample::select(vec![
                "data: ", "data", ":", " ", "\r\n", "\n", "\r", "\n\n", "ü", "{\"a\":1}", "\u{feff}",
                ": keep-alive\n\n",
            ]),
            0..40,
        ),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let text = pieces.concat().into_bytes();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        cuts.sort_unstable();
        let mut parts = Vec::new();
        let mut from = 0;
        for cut in cuts.into_iter().chain([text.len()]) {
            parts.push(&text[from..cut]);
            from = cut;
        }
        let whole = parse([&text[..]]);
        prop_assert_eq!(&parse(parts), &whole);
        prop_assert_eq!(&parse(text.chunks(1)), &whole);
    }
}
