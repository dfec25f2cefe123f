"""C++ code for .proto files, made by Debian's protoc and gRPC plugin."""

def cc_proto(name, src, deps = [], service = False, visibility = None):
    """Compiles one .proto file into a cc_library.

    Args:
      name: the library; include it as "<path of src without .proto>.pb.h".
      src: the .proto file, by its path from this package.
      deps: cc_proto libraries of the files that it imports.
      service: the file declares a service: adds ".grpc.pb.h" and gRPC.
      visibility: as for every rule.
    """
    stem = src[:-len(".proto")]
    hdrs = [stem + ".pb.h"]
    srcs = [stem + ".pb.cc"]
    plugin = ""
    if service:
        hdrs.append(stem + ".grpc.pb.h")
        srcs.append(stem + ".grpc.pb.cc")
        plugin = "--plugin=protoc-gen-grpc=$$(command -v grpc_cpp_plugin) --grpc_out=$(GENDIR)"
    native.filegroup(
        name = name + "_proto",
        srcs = [src] + [dep + "_proto" for dep in deps],
        visibility = ["//visibility:public"],
    )
    native.genrule(
        name = name + "_cc",
        message = "Generating C++ for " + src,
        srcs = [src] + [dep + "_proto" for dep in deps],
        outs = hdrs + srcs,
        cmd = "protoc -I. --cpp_out=$(GENDIR) {} $(location {})".format(plugin, src),
    )
    native.cc_library(
        name = name,
        srcs = srcs,
        hdrs = hdrs,
        copts = ["-w"],  # Generated code.
        visibility = visibility,
        deps = deps + [
            "@com_github_grpc_grpc//:grpc++" if service else "@com_google_protobuf//:protobuf",
        ],
    )
