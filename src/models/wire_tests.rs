use proptest::prelude::*;
use serde_json::json;

use super::*;

fn read(value: Value) -> Result<ModelRequest, (String, String)> {
    let text = value.to_string();
    let mut json = serde_json::Deserializer::from_str(&text);
    serde_path_to_error::deserialize(&mut json)
        .map_err(|error| (error.path().to_string(), error.into_inner().to_string()))
}

#[test]
fn m1_a_prompt_is_one_message_of_the_user() {
    assert_eq!(
        read(json!({"prompt": "hi"})).unwrap(),
        ModelRequest::prompt("hi")
    );
}

#[test]
fn m1_both_spellings_of_every_field_are_read() {
    let expected = ModelRequest::prompt("hi")
        .system("be brief")
        .preferred_model("deepseek-chat")
        .max_tokens(NonZeroU32::new(7).unwrap())
        .temperature(1.0)
        .top_p(0.5)
        .stop(["a", "b"])
        .stream(true);
    let camel = json!({
        "prompt": "hi", "system": "be brief", "preferredModel": "deepseek-chat", "maxTokens": 7,
        "temperature": 1, "topP": 0.5, "stop": ["a", "b"], "stream": true,
    });
    let snake = json!({
        "prompt": "hi", "system": "be brief", "preferred_model": "deepseek-chat", "max_tokens": 7,
        "temperature": 1.0, "top_p": 0.5, "stop": ["a", "b"], "stream": true,
    });
    assert_eq!(read(camel).unwrap(), expected);
    assert_eq!(read(snake).unwrap(), expected);
}

#[test]
fn null_is_as_good_as_absent_and_one_stop_needs_no_array() {
    let nulls = json!({
        "prompt": "hi", "messages": null, "system": null, "preferredModel": null,
        "maxTokens": null, "temperature": null, "topP": null, "stop": null, "stream": null,
    });
    assert_eq!(read(nulls).unwrap(), ModelRequest::prompt("hi"));
    let stop = json!({"prompt": "hi", "stop": "END"});
    assert_eq!(read(stop).unwrap().stop, ["END"]);
}

#[test]
fn m1_messages_keep_their_order_and_system_ones_join_the_system_text() {
    let request = read(json!({
        "system": "one",
        "messages": [
            {"role": "system", "content": "two"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": "c"},
            {"role": "system", "content": "three"},
            {"role": "user", "content": "d"},
        ],
    }))
    .unwrap();
    assert_eq!(request.system.as_deref(), Some("one\n\ntwo\n\nthree"));
    let parts = vec![Part::Text("a".into()), Part::Text("b".into())];
    assert_eq!(
        request.messages,
        [
            Message {
                role: Role::User,
                content: parts.into()
            },
            Message::assistant("c"),
            Message::user("d"),
        ]
    );
    assert_eq!(
        read(json!({"prompt": "hi", "system": ""})).unwrap().system,
        None
    );
}

#[test]
fn g6_what_is_wrong_is_told_by_its_field() {
    let user = |content: Value| json!({"messages": [{"role": "user", "content": content}]});
    // Where a path-tracking deserializer points, and what the text itself must name.
    let table = [
        (json!({}), ".", "`prompt` or `messages`"),
        (
            json!({"prompt": "a", "messages": [{"role": "user", "content": "b"}]}),
            ".",
            "`messages`",
        ),
        (json!({"prompt": ""}), "prompt", "`prompt`"),
        (json!({"prompt": " \n"}), "prompt", "`prompt`"),
        (json!({"prompt": 5}), "prompt", "expected a string"),
        (json!({"messages": []}), ".", "`messages`"),
        (
            json!({"messages": [{"role": "system", "content": "a"}]}),
            ".",
            "`messages`",
        ),
        (json!({"messages": "a"}), "messages", "expected a sequence"),
        (
            json!({"messages": [{"role": "tool", "content": "a"}]}),
            "messages[0].role",
            "`tool`",
        ),
        (
            json!({"messages": [{"content": "a"}]}),
            "messages[0]",
            "`role`",
        ),
        (
            json!({"messages": [{"role": "user"}]}),
            "messages[0]",
            "`content`",
        ),
        (user(json!("")), "messages[0].content", "`content`"),
        (user(json!([])), "messages[0].content", "`content`"),
        (user(json!(3)), "messages[0].content", "`content`"),
        (
            user(json!([{"type": "image"}])),
            "messages[0].content[0].type",
            "`image`",
        ),
        (
            user(json!([{"type": "text", "text": "a", "x": 1}])),
            "messages[0].content[0].x",
            "`x`",
        ),
        (
            json!({"prompt": "a", "maxTokens": 0}),
            "maxTokens",
            "`maxTokens`",
        ),
        (
            json!({"prompt": "a", "maxTokens": -1}),
            "maxTokens",
            "`maxTokens`",
        ),
        (
            json!({"prompt": "a", "max_tokens": 1.5}),
            "max_tokens",
            "`maxTokens`",
        ),
        (
            json!({"prompt": "a", "maxTokens": "5"}),
            "maxTokens",
            "`maxTokens`",
        ),
        (
            json!({"prompt": "a", "maxTokens": 4_294_967_296_u64}),
            "maxTokens",
            "`maxTokens`",
        ),
        (
            json!({"prompt": "a", "temperature": 2.01}),
            "temperature",
            "`temperature`",
        ),
        (
            json!({"prompt": "a", "temperature": -1}),
            "temperature",
            "`temperature`",
        ),
        (
            json!({"prompt": "a", "temperature": "hot"}),
            "temperature",
            "`temperature`",
        ),
        (json!({"prompt": "a", "topP": 2}), "topP", "`topP`"),
        (json!({"prompt": "a", "stop": [""]}), "stop", "`stop`"),
        (json!({"prompt": "a", "stop": 1}), "stop", "`stop`"),
        (
            json!({"prompt": "a", "stream": "yes"}),
            "stream",
            "expected a boolean",
        ),
        (json!({"prompt": "a", "modle": "b"}), "modle", "`modle`"),
        (
            json!({"prompt": "a", "maxTokens": 1, "max_tokens": 1}),
            ".",
            "`maxTokens`",
        ),
    ];
    for (value, path, words) in table {
        let (got_path, got) = read(value.clone()).expect_err(&value.to_string());
        assert_eq!(got_path, path, "{value}: {got}");
        assert!(got.contains(words), "{value}: {got}");
    }
}

#[test]
fn a_cut_off_body_is_told_as_such() {
    let error =
        serde_json::from_str::<ModelRequest>(r#"{"prompt":"a","temperature":"#).unwrap_err();
    assert!(error.is_eof(), "{error}");
}

proptest! {
    #[test]
    fn what_was_read_is_valid(text in r#"\PC*"#, temperature in any::<f64>(), tokens in any::<i64>()) {
        let body = json!({"prompt": text, "temperature": temperature, "maxTokens": tokens});
        if let Ok(request) = read(body) {
            prop_assert!(request.validate().is_ok());
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = serde_json::from_slice::<ModelRequest>(&bytes);
    }
}
