"""The stock `anthropic` SDK, pointed at the gateway: the address is all that differs from its own provider."""

import json

import anthropic
from anthropic import Anthropic, AsyncAnthropic
from common import *

client = Anthropic(base_url=GATEWAY, api_key="sk-of-the-caller", max_retries=0, timeout=20)
# What the SDK does without a gateway: the same requests, sent to the provider itself.
direct = Anthropic(base_url=claude.url, api_key="sk-of-the-caller", max_retries=0, timeout=1)

WEATHER = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def message(text=QUESTION):
    return [{"role": "user", "content": text}]


def request(model=CLAUDE_MODEL, **more):
    return {"model": model, "max_tokens": 100, "system": "Be brief.", "messages": message(), **more}


def ask(client=client, **more):
    return client.messages.create(**request(**more))


def read(**more):
    """The whole of a stream, through the SDK's own helper."""
    with client.messages.stream(**request(**more)) as stream:
        return stream.get_final_message()


def said(answer):
    return "".join(block.text for block in answer.content if block.type == "text")


def test_g2_an_answer_is_whole_and_tells_who_gave_it():
    for model, provider in ((CLAUDE_MODEL, claude), (DEEPSEEK_MODEL, deepseek)):
        raw = client.messages.with_raw_response.create(
            **request(model), metadata={"user_id": "somebody"}, extra_body={"no_such_field": 1}
        )
        answer = raw.parse()
        assert (answer.type, answer.role, answer.model) == ("message", "assistant", model)
        assert said(answer) == provider.says(QUESTION)
        assert answer.stop_reason == "end_turn" and answer.id
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == (6, 11)
        assert answer._request_id == raw.headers["request-id"]
        assert raw.headers["x-gateway-provider"] == provider.name
        assert raw.headers["x-gateway-model"] == model
        attempts = json.loads(raw.headers["x-gateway-attempts"])
        assert [attempt["outcome"] for attempt in attempts] == ["answered"]


async def test_g2_the_async_client_works_too():
    async with AsyncAnthropic(base_url=GATEWAY, api_key="any") as client:
        assert said(await client.messages.create(**request())) == claude.says(QUESTION)
        async with client.messages.stream(**request()) as stream:
            text = [text async for text in stream.text_stream]
        assert "".join(text) == claude.says(QUESTION)


def test_g2_a_stream_is_whole_and_has_its_usage():
    for model, provider in ((CLAUDE_MODEL, claude), (DEEPSEEK_MODEL, deepseek)):
        events = [event for event in ask(model=model, stream=True) if event.type != "ping"]
        kinds = [event.type for event in events]
        assert kinds[:2] == ["message_start", "content_block_start"]
        assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
        assert set(kinds[2:-3]) == {"content_block_delta"}
        assert events[0].message.model == model and events[0].message.id
        assert "".join(event.delta.text for event in events[2:-3]) == provider.says(QUESTION)
        assert events[-2].delta.stop_reason == "end_turn"
        assert events[-2].usage.output_tokens == 11
        answer = read(model=model)
        assert said(answer) == provider.says(QUESTION)
        assert answer.usage.output_tokens == 11


def test_g2_tools_are_called_and_their_results_understood():
    question = message("What is the weather in Paris?")
    for model, provider in ((CLAUDE_MODEL, claude), (DEEPSEEK_MODEL, deepseek)):
        for answer in (
            ask(model=model, messages=question, tools=[WEATHER]),
            read(model=model, messages=question, tools=[WEATHER], tool_choice={"type": "any"}),
        ):
            assert answer.stop_reason == "tool_use"
            (call,) = [block for block in answer.content if block.type == "tool_use"]
            assert (call.name, call.input) == ("get_weather", {"city": "Paris"})
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "Rain"}
        conversation = [
            *question,
            {"role": "assistant", "content": answer.content},
            {"role": "user", "content": [result]},
        ]
        answer = ask(model=model, messages=conversation, tools=[WEATHER])
        assert said(answer) == provider.says("Rain", "The tool said")


def test_m1_thoughts_arrive_as_blocks():
    thinking = {"type": "enabled", "budget_tokens": 1024}
    for model in (CLAUDE_MODEL, DEEPSEEK_MODEL):
        for answer in (ask(model=model, max_tokens=2048, thinking=thinking), read(model=model, max_tokens=2048, thinking=thinking)):
            assert [block.type for block in answer.content] == ["thinking", "text"]
            assert answer.content[0].thinking.startswith("They said")
        if model == CLAUDE_MODEL:
            assert answer.content[0].signature


def test_g2_the_models_are_listed():
    models = client.models.list()
    assert {model.id for model in models} == {CLAUDE_MODEL, DEEPSEEK_MODEL}
    assert {model.type for model in models} == {"model"}


def test_g2_a_long_answer_stops_at_its_limit_or_at_a_stop_sequence():
    answer = ask(max_tokens=3)
    assert (said(answer), answer.stop_reason) == ("Hello! This is", "max_tokens")
    answer = ask(stop_sequences=["simulated"])
    assert (said(answer), answer.stop_reason) == ("Hello! This is claude,", "stop_sequence")
    assert answer.stop_sequence == "simulated"


def test_g6_what_is_wrong_with_a_request_is_raised_as_the_callers_fault():
    before = claude.requests(), deepseek.requests()
    missing = raised(lambda: ask(model="gpt-9"))
    assert type(missing) is anthropic.NotFoundError, missing
    assert missing.type == "not_found_error" and "gpt-9" in missing.message
    for field, value in (("temperature", 9), ("max_tokens", -1), ("messages", []), ("tools", [{}])):
        wrong = raised(lambda: ask(extra_body={field: value}))
        assert type(wrong) is anthropic.BadRequestError, wrong
        assert wrong.type == "invalid_request_error"
        assert field in wrong.message, wrong
        assert wrong.request_id
    assert (claude.requests(), deepseek.requests()) == before, "no provider was asked"


def test_m4_each_fault_of_one_provider_is_answered_by_the_other():
    for fault in BEFORE_CONTENT:
        for ask_for in (ask, read):
            reset()
            claude.break_with(fault)
            assert said(ask_for()) == deepseek.says(QUESTION), fault
    reset()
    claude.break_with("bad-request")
    for ask_for in (ask, read):
        error = raised(ask_for)
        assert type(error) is anthropic.BadRequestError, error
    # What only breaks streams breaks a whole answer too, before anybody has seen any of it.
    for fault in MID_STREAM:
        reset()
        claude.break_with(fault)
        assert said(ask()) == deepseek.says(QUESTION), fault


def test_m4_when_all_fail_the_error_is_the_one_that_the_provider_itself_raises():
    for fault in ("server-error", "overloaded", "rate-limited", "bad-key", "no-balance", "bad-request"):
        for stream in (False, True):
            reset()
            break_both(fault)
            itself = raised(lambda: ask(direct, stream=stream))
            error = raised(lambda: ask(stream=stream))
            assert type(error) is type(itself), f"{fault}: {error!r} is not {itself!r}"
            assert error.type == itself.type, f"{fault}: {error.type} is not {itself.type}"
            assert error.request_id and error.message, fault
    # Of these the SDK can tell no more than that its own connection is well.
    for fault in ("refused", "reset", "hang", "unavailable", "rubbish", "cut", "error-first", "silence"):
        for stream in (False, True):
            reset()
            break_both(fault)
            error = raised(lambda: ask(stream=stream))
            assert isinstance(error, anthropic.InternalServerError), f"{fault}: {error!r}"
            expected = {"hang": 504, "silence": 504, "unavailable": 529}.get(fault, 502)
            assert error.status_code == expected, f"{fault}: {error!r}"


def test_m5_a_stream_that_breaks_raises_and_is_never_passed_off_as_complete():
    for fault in MID_STREAM:
        reset()
        # So that the first words are seen before the rest fails.
        claude.pace(gap_ms=20)
        break_both(fault)
        events = []

        def listen():
            for event in ask(stream=True):
                events.append(event)
            return events

        error = raised(listen)
        assert isinstance(error, anthropic.APIStatusError), f"{fault}: {error!r}"
        assert error.type, fault
        kinds = {event.type for event in events}
        assert not kinds & {"message_delta", "message_stop"}, fault
        text = "".join(event.delta.text for event in events if event.type == "content_block_delta")
        assert text and claude.says(QUESTION).startswith(text), f"{fault}: {text}"


def test_m4_a_rate_limit_tells_when_to_come_back_and_the_sdk_does():
    break_both("rate-limited", retry_after=1)
    before = claude.requests(), deepseek.requests()
    error = raised(lambda: ask(client.with_options(max_retries=1)))
    assert type(error) is anthropic.RateLimitError, error
    assert error.response.headers["retry-after"] == "1"
    # Once, and once again when the circuits, which had opened at once, let a probe through.
    assert (claude.requests() - before[0], deepseek.requests() - before[1]) == (2, 2)


def test_g2_with_every_circuit_open_the_sdk_is_told_not_to_try_again():
    break_both("unavailable", retry_after=30)
    raised(ask)
    before = claude.requests(), deepseek.requests()
    for stream in (False, True):
        asked = questions()
        error = raised(lambda: ask(client.with_options(max_retries=5), stream=stream))
        assert isinstance(error, anthropic.InternalServerError) and error.status_code == 503, error
        assert error.body["error"]["code"] == "all_circuits_open"
        assert 1 <= int(error.response.headers["retry-after"]) <= 30
        assert questions() == asked + 1, "the SDK has tried again"
    assert (claude.requests(), deepseek.requests()) == before


def test_m5_a_client_that_goes_away_takes_its_request_with_it():
    claude.pace(gap_ms=200)
    failed = health(claude)["metrics"]["failedRequests"]
    abandoned = claude.stats()["abandoned"]
    with client.messages.stream(**request()) as stream:
        next(iter(stream.text_stream))
    eventually("the provider to see it", lambda: claude.stats()["abandoned"] == abandoned + 1)
    assert health(claude)["metrics"]["failedRequests"] == failed


if __name__ == "__main__":
    run(dict(globals()))
