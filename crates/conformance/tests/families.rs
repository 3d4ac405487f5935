//! Families that the reference data lacks, against llama.cpp's logits for tiny models (`tests/fixtures/families`).

#[test]
fn logits_and_greedy_tokens_are_the_references() {
    let arguments = ["../../tests/fixtures/families", "--only", "models", "--strict"];
    let all_is_well = conformance::run(arguments.into_iter().map(str::to_owned)).expect("data");
    assert!(all_is_well, "see the lines above");
}
