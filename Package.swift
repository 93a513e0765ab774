// swift-tools-version: 6.2
import PackageDescription

// A target imports only lower layers (see ARCHITECTURE.md, "The house"). `make lint` holds every import
// against this file, and the build runs with `--explicit-target-dependency-import-check error`.

let strict: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .treatAllWarnings(as: .error),
]
let strictC: [CSetting] = [.treatAllWarnings(as: .error), .define("_GNU_SOURCE")]

let nio: [Target.Dependency] = [
    .product(name: "NIOCore", package: "swift-nio"),
    .product(name: "NIOPosix", package: "swift-nio"),
]
let nioCore: Target.Dependency = .product(name: "NIOCore", package: "swift-nio")
let nioPosix: Target.Dependency = .product(name: "NIOPosix", package: "swift-nio")
let nioHTTP: Target.Dependency = .product(name: "NIOHTTP1", package: "swift-nio")
let log: Target.Dependency = .product(name: "Logging", package: "swift-log")
let arguments: Target.Dependency = .product(name: "ArgumentParser", package: "swift-argument-parser")
let system: Target.Dependency = .product(name: "SystemPackage", package: "swift-system")
let histogram: Target.Dependency = .product(name: "Histogram", package: "hdrhistogram-swift")
let deque: Target.Dependency = .product(name: "DequeModule", package: "swift-collections")
let crypto: Target.Dependency = .product(name: "Crypto", package: "swift-crypto")
let ssl: Target.Dependency = .product(name: "NIOSSL", package: "swift-nio-ssl")
let yams: Target.Dependency = .product(name: "Yams", package: "Yams")

func library(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
    .target(name: name, dependencies: dependencies, path: "Sources/\(name)", swiftSettings: strict)
}

func executable(_ name: String, _ dependencies: [Target.Dependency], path: String? = nil) -> Target {
    .executableTarget(name: name, dependencies: dependencies, path: path ?? "Sources/\(name)", swiftSettings: strict)
}

func tests(_ name: String, _ dependencies: [Target.Dependency], exclude: [String] = []) -> Target {
    .testTarget(
        name: name, dependencies: dependencies, path: "Tests/\(name)", exclude: exclude, swiftSettings: strict)
}

/// What tests share. The demo and the perf harness run clusters as the tests do.
func support(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
    .target(name: name, dependencies: dependencies, path: "Tests/Support/\(name)", swiftSettings: strict)
}

// `make fuzz` builds the fuzzer's executable, which has no `main` of its own; otherwise the same functions are a test target
// that replays the corpus.
let isFuzzing = Context.environment["TWINLOG_FUZZ"] != nil
let fuzzed: [Target.Dependency] = [
    "LogModel", "PersistentMemory", "WriteLog", "Recovery", "CLogCore", "NBDProtocol", "RemoteMemoryTCP",
    "ClusterProtocol", "AdminProtocol", "ClusterConfiguration", nioCore,
]
let fuzzing: Target =
    isFuzzing
    ? .executableTarget(
        name: "twinlog-fuzz", dependencies: fuzzed, path: "Tests/Verification/fuzz",
        exclude: ["corpus", "CorpusTests.swift"],
        swiftSettings: strict)
    : .testTarget(
        name: "FuzzTests", dependencies: fuzzed, path: "Tests/Verification/fuzz",
        exclude: ["corpus", "FuzzMain.swift"],
        swiftSettings: strict)

let package = Package(
    name: "TwinLog",
    products: [
        .library(name: "TwinLog", targets: ["TwinLog"]),
        .executable(name: "twinlogd", targets: ["twinlogd"]),
        .executable(name: "twinlog", targets: ["twinlog"]),
        .executable(name: "twinlog-recover", targets: ["twinlog-recover"]),
        .executable(name: "twinlog-perf", targets: ["twinlog-perf"]),
        // Of the tests: it is loaded into the nodes that they start.
        .library(name: "MediumRecorder", type: .dynamic, targets: ["CMediumRecorder"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.6"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-system", from: "1.8.1"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
        .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", from: "0.2.0"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
    ],
    targets: [
        // C: persistent memory
        .systemLibrary(
            name: "Clibpmem", path: "CSupport/Clibpmem", pkgConfig: "libpmem", providers: [.apt(["libpmem-dev"])]),
        // C: an iSCSI initiator in user space
        .systemLibrary(
            name: "Clibiscsi", path: "CSupport/Clibiscsi", pkgConfig: "libiscsi", providers: [.apt(["libiscsi-dev"])]),
        .target(name: "CLogCore", path: "CSupport/CLogCore", cSettings: strictC),
        .target(name: "CHostSupport", path: "CSupport/CHostSupport", cSettings: strictC),

        // Leaf vocabulary
        library("LogModel"),

        // swift-log's handler, with a queue
        library("NodeLog", [log]),

        // What every executable does as a process: its start, signals, output, exit codes
        library("HostProcess", ["CHostSupport", arguments]),

        // Side by side, blind to each other
        library("PersistentMemory", ["LogModel", "CHostSupport", "Clibpmem", "CLogCore", system]),
        library("StorageMedium", ["LogModel", "CHostSupport"]),
        library("RemoteMemory", ["LogModel"]),
        library("NBDProtocol", [nioCore]),
        library("Coordination", ["LogModel", "CHostSupport"]),
        library("ClusterConfiguration", ["LogModel", yams, crypto]),

        library("SCSICommands", ["LogModel", crypto]),
        library(
            "StorageMediumSCSI", ["LogModel", "StorageMedium", "SCSICommands", "CHostSupport", "Clibiscsi"]),

        // What an event loop does before it sleeps
        library("LoopPolling", ["LogModel", "CHostSupport", nioCore]),

        // From one event loop to another
        library("LoopChange", nio),

        library(
            "RemoteMemoryTCP",
            ["LogModel", "RemoteMemory", "LoopPolling", "LoopChange", "CLogCore", crypto] + nio),
        library("TransportSecurity", ["LogModel", "RemoteMemoryTCP", crypto, nioCore, ssl]),
        library("CoordinationEtcd", ["LogModel", "Coordination", nioHTTP, ssl] + nio),
        library("FenceReservation", ["LogModel", "Coordination", "SCSICommands"]),
        library("FenceCommand", ["LogModel", "Coordination", "CHostSupport"]),
        // From a configuration to its coordinator
        library(
            "ConfiguredCoordinator", ["LogModel", "Coordination", "CoordinationEtcd", "ClusterConfiguration"]),
        library("WriteLog", ["LogModel", "PersistentMemory", "CLogCore"]),
        library("ClusterProtocol", ["LogModel", "Coordination", deque]),
        library("NBDClient", ["LogModel", "NBDProtocol"] + nio),

        library("Recovery", ["LogModel", "PersistentMemory", "WriteLog", "StorageMedium", "Coordination"]),
        library("AdminProtocol", ["LogModel", "CHostSupport"] + nio),
        // What a node needs of its machine
        library(
            "NodeNeeds",
            [
                "LogModel", "PersistentMemory", "StorageMedium", "StorageMediumSCSI", "Coordination",
                "ConfiguredCoordinator", "FenceCommand", "ClusterConfiguration", "AdminProtocol", "TransportSecurity",
            ]),
        library(
            "GroupEngine",
            [
                "LogModel", "PersistentMemory", "WriteLog", "StorageMedium", "RemoteMemory", "CLogCore", "Coordination",
                "ClusterProtocol", "ClusterConfiguration", "Recovery", nioCore, deque,
            ]),
        library(
            "StorageNode",
            [
                "LogModel", "PersistentMemory", "RemoteMemory", "CHostSupport", "Coordination",
                "ClusterProtocol", "ClusterConfiguration", "GroupEngine", "AdminProtocol", "NodeNeeds",
                log,
            ] + nio),
        library(
            "NodeAssembly",
            [
                "LogModel", "PersistentMemory", "StorageMedium", "RemoteMemory", "RemoteMemoryTCP", "Coordination",
                "ConfiguredCoordinator", "FenceCommand", "FenceReservation", "SCSICommands", "StorageMediumSCSI",
                "ClusterConfiguration", "GroupEngine", "StorageNode",
                "TransportSecurity", "LoopPolling", "LoopChange", log, nioCore,
            ]),
        library(
            "TwinLog",
            [
                "LogModel", "PersistentMemory", "WriteLog", "RemoteMemory", "RemoteMemoryTCP", "ClusterProtocol",
                "ClusterConfiguration", "AdminProtocol", "GroupEngine", "StorageNode", "NodeAssembly",
                "TransportSecurity", log,
            ] + nio),
        library(
            "NBDServer",
            [
                "LogModel", "CHostSupport", "NBDProtocol", "AdminProtocol", "GroupEngine", "StorageNode", "LoopPolling",
                "LoopChange", log,
            ] + nio),

        executable(
            "twinlogd",
            [
                "LogModel", "HostProcess", "NodeLog", "ClusterConfiguration", "StorageNode", "NodeAssembly",
                "NBDServer", "TransportSecurity", "LoopPolling",
                "AdminProtocol", "NodeNeeds", arguments, log,
            ] + nio),
        executable(
            "twinlog",
            [
                "LogModel", "HostProcess", "Coordination", "ClusterConfiguration", "AdminProtocol", "NodeNeeds",
                arguments,
            ]),
        executable(
            "twinlog-recover",
            [
                "LogModel", "HostProcess", "PersistentMemory", "WriteLog", "StorageMedium", "Recovery", "Coordination",
                "ConfiguredCoordinator", "ClusterConfiguration", arguments,
            ]),
        executable(
            "twinlog-demo",
            ["HostProcess", "ClusterHarness", "AdminProtocol", "NBDClient", "LogModel", nioPosix, arguments]),
        .target(
            name: "CStreamFloor", dependencies: ["CLogCore"], path: "Perf/CStreamFloor", cSettings: strictC),
        executable(
            "twinlog-perf",
            [
                "LogModel", "HostProcess", "PersistentMemory", "WriteLog", "CLogCore", "RemoteMemory",
                "RemoteMemoryTCP",
                "ClusterProtocol", "GroupEngine", "StorageNode", "StorageMedium", "NBDClient", "ClusterHarness",
                "AdminProtocol", "LoopPolling", "CStreamFloor", arguments, histogram,
            ] + nio,
            path: "Perf/twinlog-perf"),

        support("TestSupport", ["LogModel", "StorageMedium"]),
        support(
            "ClusterHarness",
            ["TestSupport", "LogModel", "ClusterConfiguration", "AdminProtocol", "NBDClient", nioCore]),
        support("EtcdSupport", ["LogModel", "CoordinationEtcd", "ClusterHarness"] + nio),
        .target(
            name: "CMediumRecording", path: "Tests/Support/CMediumRecording", cSettings: strictC),
        .target(
            name: "CMediumRecorder", dependencies: ["CMediumRecording"], path: "Tests/Support/CMediumRecorder",
            cSettings: strictC, linkerSettings: [.linkedLibrary("dl")]),
        support("MediumRecording", ["TestSupport", "ClusterHarness", "CMediumRecording"]),
        tests("MediumRecordingTests", ["TestSupport", "ClusterHarness", "MediumRecording"]),
        .target(name: "CHostHarness", path: "Tests/Support/CHostHarness", cSettings: strictC),
        support(
            "HostHarness",
            [
                "CHostHarness", "TestSupport", "LogModel", "Coordination", "AdminProtocol", "ClusterHarness",
                "EtcdSupport",
                "MediumRecording", "NBDClient", nioCore,
            ]),
        support("ISCSISupport", ["LogModel", "ClusterHarness"]),
        support("RecordSupport", ["LogModel", "Coordination"]),
        support("SimulationSupport", ["TestSupport"]),
        support("RemoteMemorySupport", ["RemoteMemory"]),
        .target(name: "CFibers", path: "Tests/Support/CFibers", cSettings: strictC),
        tests("LogModelTests", ["TestSupport", "LogModel"]),
        tests("LoopPollingTests", ["LogModel", "LoopPolling"] + nio),
        tests("LoopChangeTests", ["LoopChange"] + nio),
        tests("NodeLogTests", ["NodeLog", log]),
        tests("HostProcessTests", ["HostProcess"]),
        tests("PersistentMemoryTests", ["TestSupport", "LogModel", "PersistentMemory"]),
        tests("WriteLogTests", ["TestSupport", "LogModel", "PersistentMemory", "WriteLog", "CLogCore"]),
        .target(
            name: "CCrashStates", dependencies: ["CLogCore"], path: "Tests/Verification/crash-states",
            cSettings: strictC),
        tests(
            "CrashTests",
            [
                "TestSupport",
                "LogModel", "PersistentMemory", "WriteLog", "StorageMedium", "Recovery", "RemoteMemory", "GroupEngine",
                "ClusterProtocol", "CLogCore", "CCrashStates",
            ]),
        tests("StorageMediumTests", ["TestSupport", "LogModel", "StorageMedium", "CHostSupport"]),
        tests(
            "CoordinationTests",
            ["TestSupport", "LogModel", "Coordination", "CoordinationEtcd", "RecordSupport", "EtcdSupport"]),
        tests(
            "CoordinationEtcdTests",
            [
                "TestSupport", "LogModel", "Coordination", "CoordinationEtcd", "RecordSupport", "EtcdSupport",
                "ClusterHarness",
            ] + nio),
        tests("SCSITests", ["TestSupport", "LogModel", "SCSICommands", "Coordination", "FenceReservation"]),
        tests(
            "StorageMediumSCSITests",
            [
                "TestSupport", "ClusterHarness", "ISCSISupport", "LogModel", "StorageMedium", "SCSICommands",
                "StorageMediumSCSI", "Coordination", "FenceReservation",
            ]),
        tests("FenceCommandTests", ["TestSupport", "LogModel", "Coordination", "FenceCommand"]),
        tests("ClusterConfigurationTests", ["TestSupport", "LogModel", "ClusterConfiguration"]),
        tests(
            "RemoteMemoryTCPTests",
            [
                "TestSupport", "RemoteMemorySupport", "LogModel", "RemoteMemory", "RemoteMemoryTCP",
                "TransportSecurity", crypto,
            ] + nio),
        tests(
            "NBDTests",
            [
                "TestSupport",
                "LogModel", "NBDServer", "NBDClient", "GroupEngine", "AdminProtocol", log,
                .product(name: "NIOEmbedded", package: "swift-nio"),
            ] + nio),
        tests("AdminProtocolTests", ["TestSupport", "AdminProtocol"] + nio),
        tests(
            "NodeNeedsTests",
            [
                "TestSupport",
                "LogModel", "ClusterConfiguration", "PersistentMemory", "Coordination", "NodeNeeds", "RecordSupport",
                "ClusterHarness",
            ]),
        tests("ClusterProtocolTests", ["LogModel", "Coordination", "ClusterProtocol", "RecordSupport"]),
        tests(
            "SimulationTests",
            [
                "TestSupport",
                "SimulationSupport", "RemoteMemorySupport", "CFibers",
                "LogModel", "PersistentMemory", "StorageMedium", "RemoteMemory", "Coordination", "ClusterConfiguration",
                "ClusterProtocol", "WriteLog", "Recovery", "GroupEngine", "CLogCore", nioCore,
            ], exclude: ["README.md"]),
        tests(
            "RecoveryTests",
            [
                "TestSupport",
                "LogModel", "PersistentMemory", "WriteLog", "StorageMedium", "Recovery", "Coordination", "CLogCore",
                "RecordSupport",
            ]),
        tests(
            "StorageNodeTests",
            [
                "TestSupport",
                "LogModel", "PersistentMemory", "RemoteMemory", "StorageMedium", "WriteLog", "Recovery", "CLogCore",
                "ClusterProtocol", "GroupEngine", "StorageNode", "NodeAssembly", "ClusterConfiguration",
                "ClusterHarness",
                "Coordination", "ConfiguredCoordinator", "RecordSupport",
                "RemoteMemoryTCP", "AdminProtocol", log,
                .product(name: "NIOEmbedded", package: "swift-nio"),
            ] + nio),
        tests("TwinLogTests", ["TestSupport", "TwinLog", "ClusterHarness", log] + nio),
        fuzzing,
        tests(
            "IntegrationTests",
            [
                "TestSupport",
                "LogModel", "ClusterHarness", "AdminProtocol", "Coordination", "ConfiguredCoordinator",
                "CoordinationEtcd",
                "EtcdSupport", "HostHarness", "ISCSISupport", "StorageMedium", "SCSICommands", "StorageMediumSCSI",
                "NBDClient",
                "ClusterConfiguration", "ClusterProtocol", "RemoteMemory", "RemoteMemoryTCP",
            ] + nio),
    ]
)

// A part of the package, with what it needs, for loops that build it again and again (`make mutate`).
if let wanted = Context.environment["TWINLOG_TARGETS"] {
    var names: Set<String> = []
    var asked = wanted.split(separator: ",").map(String.init)
    while let name = asked.popLast() {
        guard names.insert(name).inserted else { continue }
        for dependency in package.targets.first(where: { $0.name == name })?.dependencies ?? [] {
            if case .byNameItem(let needed, _) = dependency { asked.append(needed) }
        }
    }
    package.products = []
    package.targets.removeAll { !names.contains($0.name) }
}
