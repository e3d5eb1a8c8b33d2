#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| fulmar_fuzzing::kcptun2016_endpoint(data));
