{
  "variables": {
    "node_addon_api": "<!(node -p \"require('node-addon-api').include_dir\")",
    "list": "node tools/list-sources.cjs",
    "cuda_compiler": "<!(node tools/embed-cuda-kernels.cjs --compiler)",
    "hip_compiler": "<!(node tools/embed-hip-kernels.cjs --compiler)"
  },
  "target_defaults": {
    "include_dirs": ["native"],
    "cflags_cc!": ["-fno-exceptions", "-fno-rtti", "-std=gnu++17"],
    "cflags_cc": ["-std=c++20", "-O3", "-fexceptions", "-Wall", "-Wextra", "-Wno-unused-parameter", "-fvisibility=hidden", "-ffp-contract=off"],
    "cflags": ["-fPIC"],
    "xcode_settings": {
      "CLANG_CXX_LANGUAGE_STANDARD": "c++20",
      "GCC_ENABLE_CPP_EXCEPTIONS": "YES",
      "MACOSX_DEPLOYMENT_TARGET": "13.0",
      "OTHER_CPLUSPLUSFLAGS": ["-O3", "-ffp-contract=off"]
    },
    "msvs_settings": { "VCCLCompilerTool": { "ExceptionHandling": 1, "AdditionalOptions": ["/std:c++20"] } }
  },
  "targets": [
    {
      "target_name": "kernels_avx2",
      "type": "static_library",
      "sources": ["<!@(<(list) native/cpu/avx2)"],
      "conditions": [
        ["target_arch=='x64'", {
          "cflags": ["-mavx2", "-mfma", "-mf16c", "-msse4.2"],
          "xcode_settings": { "OTHER_CFLAGS": ["-mavx2", "-mfma", "-mf16c", "-msse4.2"] },
          "msvs_settings": { "VCCLCompilerTool": { "AdditionalOptions": ["/arch:AVX2"] } }
        }]
      ]
    },
    {
      "target_name": "kernels_avx512",
      "type": "static_library",
      "sources": ["<!@(<(list) native/cpu/avx512)"],
      "conditions": [
        ["target_arch=='x64'", {
          "cflags": ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vbmi", "-mavx512vbmi2", "-mfma", "-mf16c", "-mprefer-vector-width=512"],
          "xcode_settings": { "OTHER_CFLAGS": ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vbmi", "-mavx512vbmi2", "-mfma", "-mf16c"] },
          "msvs_settings": { "VCCLCompilerTool": { "AdditionalOptions": ["/arch:AVX512"] } }
        }]
      ]
    },
    {
      "target_name": "kernels_vnni",
      "type": "static_library",
      "sources": ["<!@(<(list) native/cpu/vnni)"],
      "conditions": [
        ["target_arch=='x64'", {
          "cflags": ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vbmi", "-mavx512vbmi2", "-mavx512vnni", "-mavx512bf16", "-mfma", "-mf16c", "-mprefer-vector-width=512"],
          "xcode_settings": { "OTHER_CFLAGS": ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vbmi", "-mavx512vbmi2", "-mavx512vnni", "-mavx512bf16", "-mfma", "-mf16c"] },
          "msvs_settings": { "VCCLCompilerTool": { "AdditionalOptions": ["/arch:AVX512"] } }
        }]
      ]
    },
    {
      "target_name": "layerstream",
      "dependencies": ["kernels_avx2", "kernels_avx512", "kernels_vnni"],
      "include_dirs": ["<(node_addon_api)"],
      "defines": ["NAPI_VERSION=8"],
      "sources": [
        "<!@(<(list) --all)",
        "<(SHARED_INTERMEDIATE_DIR)/opencl_kernels.cc",
        "<(SHARED_INTERMEDIATE_DIR)/cuda_kernels.cc",
        "<(SHARED_INTERMEDIATE_DIR)/hip_kernels.cc"
      ],
      "actions": [
        {
          "action_name": "embed_opencl_kernels",
          "inputs": ["tools/embed-kernels.cjs", "<!@(<(list) native/opencl/kernels .cl)"],
          "outputs": ["<(SHARED_INTERMEDIATE_DIR)/opencl_kernels.cc"],
          "action": ["node", "tools/embed-kernels.cjs", "native/opencl/kernels", "<@(_outputs)"]
        },
        {
          "action_name": "embed_cuda_kernels",
          "inputs": ["tools/embed-cuda-kernels.cjs", "tools/kernel-images.cjs", "<!@(<(list) native/cuda/kernels .cu)", "<!@(<(list) native/cuda/kernels .h)", "<!@(<(list) native/cuda/kernels .cuh)", "<!@(<(list) native/backend .h)"],
          "outputs": ["<(SHARED_INTERMEDIATE_DIR)/cuda_kernels.cc"],
          "action": ["node", "tools/embed-cuda-kernels.cjs", "<(cuda_compiler)", "native/cuda/kernels", "<@(_outputs)"]
        },
        {
          "action_name": "embed_hip_kernels",
          "inputs": ["tools/embed-hip-kernels.cjs", "tools/kernel-images.cjs", "<!@(<(list) native/cuda/kernels .cu)", "<!@(<(list) native/cuda/kernels .h)", "<!@(<(list) native/cuda/kernels .cuh)", "<!@(<(list) native/backend .h)"],
          "outputs": ["<(SHARED_INTERMEDIATE_DIR)/hip_kernels.cc"],
          "action": ["node", "tools/embed-hip-kernels.cjs", "<(hip_compiler)", "native/cuda/kernels", "<@(_outputs)"]
        }
      ]
    }
  ]
}
