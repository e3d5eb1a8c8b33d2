#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| fulmar_fuzzing::libev_stream(data));
