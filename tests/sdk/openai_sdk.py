"""The stock `openai` SDK, pointed at the gateway: the address is all that differs from its own provider."""

import json

import openai
from common import *
from openai import AsyncOpenAI, OpenAI

client = OpenAI(base_url=f"{GATEWAY}/v1", api_key="sk-of-the-caller", max_retries=0, timeout=20)
# What the SDK does without a gateway: the same requests, sent to the provider itself.
direct = OpenAI(base_url=f"{deepseek.url}/v1", api_key="sk-of-the-caller", max_retries=0, timeout=1)

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def messages(text=QUESTION):
    return [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]


def ask(client=client, model=CLAUDE_MODEL, **more):
    return client.chat.completions.create(**{"model": model, "messages": messages(), **more})


def joined(stream):
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def test_g2_an_answer_is_whole_and_tells_who_gave_it():
    for model, provider in ((CLAUDE_MODEL, claude), (DEEPSEEK_MODEL, deepseek)):
        raw = client.chat.completions.with_raw_response.create(
            model=model, messages=messages(), user="somebody", extra_body={"no_such_field": 1},
            extra_headers={"x-request-id": "req-of-the-caller"},
        )
        answer = raw.parse()
        assert answer.object == "chat.completion"
        assert answer.choices[0].message.content == provider.says(QUESTION)
        assert answer.choices[0].message.role == "assistant"
        assert answer.choices[0].finish_reason == "stop"
        assert answer.model == model
        assert answer.usage.prompt_tokens == 6
        assert answer.usage.completion_tokens == 11
        assert answer.usage.total_tokens == 17
        assert answer._request_id == raw.headers["x-request-id"] == "req-of-the-caller"
        assert raw.headers["x-gateway-provider"] == provider.name
        assert raw.headers["x-gateway-model"] == model
        attempts = json.loads(raw.headers["x-gateway-attempts"])
        assert [attempt["outcome"] for attempt in attempts] == ["answered"]
    assert client.chat.completions.create(model=CLAUDE_MODEL, messages=messages())._request_id


async def test_g2_the_async_client_works_too():
    async with AsyncOpenAI(base_url=f"{GATEWAY}/v1", api_key="any") as client:
        answer = await client.chat.completions.create(model=CLAUDE_MODEL, messages=messages())
        assert answer.choices[0].message.content == claude.says(QUESTION)
        stream = await client.chat.completions.create(model=CLAUDE_MODEL, messages=messages(), stream=True)
        text = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
        assert "".join(text) == claude.says(QUESTION)


def test_g2_a_stream_is_whole_and_has_its_usage_where_that_is_asked_for():
    for model, provider in ((CLAUDE_MODEL, claude), (DEEPSEEK_MODEL, deepseek)):
        chunks = list(ask(model=model, stream=True, stream_options={"include_usage": True}))
        assert joined(chunks) == provider.says(QUESTION)
        assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
        assert len({chunk.id for chunk in chunks}) == 1 and chunks[0].id
        assert {chunk.model for chunk in chunks} == {model}
        assert chunks[0].choices[0].delta.role == "assistant"
        finishes = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
        assert [finish for finish in finishes if finish] == ["stop"] and finishes[-1] == "stop"
        assert chunks[-1].choices == [] and chunks[-1].usage.total_tokens == 17
        assert all(chunk.usage is None for chunk in chunks[:-1])
        without = list(ask(model=model, stream=True))
        assert joined(without) == provider.says(QUESTION)
        assert all(chunk.usage is None for chunk in without)


def test_g2_the_helper_for_streams_works():
    with client.chat.completions.stream(model=CLAUDE_MODEL, messages=messages()) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        answer = stream.get_final_completion()
    assert "".join(deltas) == answer.choices[0].message.content == claude.says(QUESTION)


def test_g2_tools_are_called_and_their_results_understood():
    question = messages("What is the weather in Paris?")
    for model, provider in ((CLAUDE_MODEL, claude), (DEEPSEEK_MODEL, deepseek)):
        answer = ask(model=model, messages=question, tools=[WEATHER], tool_choice="auto").choices[0]
        assert answer.finish_reason == "tool_calls"
        (call,) = answer.message.tool_calls
        assert call.function.name == "get_weather"
        assert json.loads(call.function.arguments) == {"city": "Paris"}

        name, arguments, ids = "", "", set()
        for chunk in ask(model=model, messages=question, tools=[WEATHER], stream=True):
            for delta in chunk.choices[0].delta.tool_calls or []:
                assert delta.index == 0
                ids |= {delta.id} - {None}
                name += delta.function.name or ""
                arguments += delta.function.arguments or ""
        assert (name, json.loads(arguments), len(ids)) == ("get_weather", {"city": "Paris"}, 1)

        result = {"role": "tool", "tool_call_id": call.id, "content": "Rain"}
        conversation = [*question, answer.message, result]
        answer = ask(model=model, messages=conversation, tools=[WEATHER]).choices[0]
        assert answer.message.content == provider.says("Rain", "The tool said")


def test_m1_thoughts_arrive_as_reasoning_content():
    more = {"extra_body": {"thinking": {"type": "enabled"}}}
    message = ask(model=DEEPSEEK_MODEL, **more).choices[0].message
    assert message.reasoning_content.startswith("They said")
    deltas = [chunk.choices[0].delta for chunk in ask(model=DEEPSEEK_MODEL, stream=True, **more) if chunk.choices]
    thoughts = [getattr(delta, "reasoning_content", None) or "" for delta in deltas]
    assert "".join(thoughts) == message.reasoning_content


def test_g2_the_models_are_listed():
    assert {model.id for model in client.models.list()} == {CLAUDE_MODEL, DEEPSEEK_MODEL}


def test_g2_a_long_answer_stops_at_its_limit():
    choice = ask(max_tokens=3).choices[0]
    assert (choice.message.content, choice.finish_reason) == ("Hello! This is", "length")


def test_g6_what_is_wrong_with_a_request_is_raised_as_the_callers_fault():
    before = claude.requests(), deepseek.requests()
    missing = raised(lambda: ask(model="gpt-9"))
    assert type(missing) is openai.NotFoundError, missing
    assert missing.code == "model_not_found" and missing.param == "model" and "gpt-9" in missing.message
    for field, value in (("temperature", 9), ("max_tokens", -1), ("messages", []), ("tools", [{}])):
        wrong = raised(lambda: ask(**{field: value}))
        assert type(wrong) is openai.BadRequestError, wrong
        assert wrong.type == "invalid_request_error"
        assert field in wrong.message, wrong
        assert (wrong.param or "").startswith(field), wrong.param
        assert wrong.request_id
    assert (claude.requests(), deepseek.requests()) == before, "no provider was asked"


def test_m4_each_fault_of_one_provider_is_answered_by_the_other():
    for fault in BEFORE_CONTENT:
        for stream in (False, True):
            reset()
            claude.break_with(fault)
            answer = ask(stream=stream)
            text = joined(answer) if stream else answer.choices[0].message.content
            assert text == deepseek.says(QUESTION), f"{fault}, stream={stream}: {text}"
    reset()
    claude.break_with("bad-request")
    for stream in (False, True):
        error = raised(lambda: ask(stream=stream))
        assert type(error) is openai.BadRequestError, error
    # What only breaks streams breaks a whole answer too, before anybody has seen any of it.
    for fault in MID_STREAM:
        reset()
        claude.break_with(fault)
        assert ask().choices[0].message.content == deepseek.says(QUESTION), fault


def test_m4_when_all_fail_the_error_is_the_one_that_the_provider_itself_raises():
    for fault in ("server-error", "unavailable", "overloaded", "rate-limited", "bad-key", "no-balance", "bad-request"):
        for stream in (False, True):
            reset()
            break_both(fault)
            itself = raised(lambda: ask(direct, stream=stream))
            error = raised(lambda: ask(stream=stream))
            assert type(error) is type(itself), f"{fault}: {error!r} is not {itself!r}"
            assert error.request_id and error.message and error.code, fault
    # Of these the SDK can tell no more than that its own connection is well.
    for fault in ("refused", "reset", "hang", "rubbish", "cut", "error-first", "silence"):
        for stream in (False, True):
            reset()
            break_both(fault)
            error = raised(lambda: ask(stream=stream))
            assert type(error) is openai.InternalServerError, f"{fault}: {error!r}"
            expected = {"hang": 504, "silence": 504}.get(fault, 502)
            assert error.status_code == expected, f"{fault}: {error!r}"


def test_m5_a_stream_that_breaks_raises_and_is_never_passed_off_as_complete():
    for fault in MID_STREAM:
        reset()
        # So that the first words are seen before the rest fails.
        claude.pace(gap_ms=20)
        break_both(fault)
        said = []

        def read():
            for chunk in ask(stream=True):
                said.append(chunk)
                assert not chunk.choices or chunk.choices[0].finish_reason is None
            return said

        error = raised(read)
        assert type(error) is openai.APIError, f"{fault}: {error!r}"
        assert error.message and error.code, fault
        text = joined(said)
        assert text and claude.says(QUESTION).startswith(text), f"{fault}: {text}"
        assert health(claude)["metrics"]["failedRequests"] >= 1


def test_m4_a_rate_limit_tells_when_to_come_back_and_the_sdk_does():
    break_both("rate-limited", retry_after=1)
    before = claude.requests(), deepseek.requests()
    error = raised(lambda: ask(client.with_options(max_retries=1)))
    assert type(error) is openai.RateLimitError, error
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
        assert type(error) is openai.InternalServerError and error.status_code == 503, error
        assert error.code == "all_circuits_open"
        assert 1 <= int(error.response.headers["retry-after"]) <= 30
        assert questions() == asked + 1, "the SDK has tried again"
    assert (claude.requests(), deepseek.requests()) == before


def test_m5_a_client_that_goes_away_takes_its_request_with_it():
    claude.pace(gap_ms=200)
    failed = health(claude)["metrics"]["failedRequests"]
    abandoned = claude.stats()["abandoned"]
    stream = ask(stream=True)
    next(iter(stream))
    stream.close()
    eventually("the provider to see it", lambda: claude.stats()["abandoned"] == abandoned + 1)
    assert health(claude)["metrics"]["failedRequests"] == failed


def test_m5_a_slow_answer_is_no_failure():
    claude.break_with("trickle", gap_ms=50)
    assert joined(ask(stream=True)) == claude.says(QUESTION)


if __name__ == "__main__":
    run(dict(globals()))
