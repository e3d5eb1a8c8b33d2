#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| fulmar_fuzzing::kcp_input(data));
