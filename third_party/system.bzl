"""Debian's libraries as Bazel repositories.

Each repository holds links to the header folders or files of one library, and
a BUILD file from this folder that gives them labels. The linker finds the
libraries themselves on its default path.
"""

def _system_library_impl(ctx):
    for header in ctx.attr.headers:
        path = ctx.path(ctx.attr.prefix + "/" + header)
        if not path.exists:
            fail("needs {} from Debian package {}; run tests/run.sh, which installs it".format(path, ctx.attr.package))
        ctx.symlink(path, "include/" + header)
    ctx.symlink(ctx.attr.build_file, "BUILD.bazel")

_system_library = repository_rule(
    implementation = _system_library_impl,
    local = True,
    attrs = {
        "build_file": attr.label(mandatory = True, allow_single_file = True),
        "headers": attr.string_list(mandatory = True),
        "package": attr.string(mandatory = True),
        "prefix": attr.string(default = "/usr/include"),
    },
)

def system_libraries():
    """Declares every library that the project links."""
    for name, package, headers in [
        ("com_github_facebookincubator_gloo", "libgloo-dev", ["gloo"]),
        ("com_github_gflags_gflags", "libgflags-dev", ["gflags"]),
        ("com_github_google_benchmark", "libbenchmark-dev", ["benchmark"]),
        ("com_github_google_glog", "libgoogle-glog-dev", ["glog"]),
        ("com_github_grpc_grpc", "libgrpc++-dev", ["grpc", "grpc++", "grpcpp"]),
        ("com_github_jupp0r_prometheus_cpp", "prometheus-cpp-dev", ["prometheus"]),
        ("com_github_nlohmann_json", "nlohmann-json3-dev", ["nlohmann"]),
        ("com_github_xxhash", "libxxhash-dev", ["xxhash.h", "xxh3.h"]),
        ("com_google_absl", "libabsl-dev", ["absl"]),
        ("com_google_googletest", "libgtest-dev and libgmock-dev", ["gmock", "gtest"]),
        ("com_google_protobuf", "libprotobuf-dev", ["google/protobuf"]),
        ("onednn", "libdnnl-dev", ["dnnl.hpp", "dnnl.h", "dnnl_config.h", "dnnl_debug.h", "dnnl_types.h", "dnnl_version.h", "oneapi"]),
        ("openssl", "libssl-dev", ["openssl"]),
    ]:
        _system_library(
            name = name,
            build_file = "//third_party:{}.BUILD".format(name),
            headers = headers,
            package = package,
        )
