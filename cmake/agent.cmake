# The static program (architecture.md 8.1) and the tree that is mounted at /agent in a sandbox:
#   build/<preset>/agent/{entrypoint.sh,agent/entrypoint.sh,bin/muster}
# It is compiled apart from everything else: without sanitizers, optimised for size, against musl, whose resolver needs
# no shared library (glibc's does even in a static program). Without musl-tools glibc is taken, and names are then only
# resolved where the image has a glibc of the same version.
set(MU_AGENT_SRC
  src/base/alloc.c src/base/buf.c src/base/bytes.c src/base/clock.c src/base/encode.c src/base/env.c src/base/err.c src/base/fd.c
  src/base/arena.c src/base/id.c src/base/ring.c src/exec/pty.c
  src/io/folder.c src/proto/frame.c src/proto/json_write.c src/proto/jtok.c src/proto/links.c src/proto/redact.c src/proto/redact_forms.c
  src/proto/redact_json.c src/proto/repo.c src/proto/sse.c src/proto/ws.c)
file(GLOB agent_globbed RELATIVE ${CMAKE_SOURCE_DIR} CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/runner/*.c)
file(GLOB agent_agents RELATIVE ${CMAKE_SOURCE_DIR} CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/exec/agents/*.c)
list(APPEND MU_AGENT_SRC ${agent_globbed} ${agent_agents} src/main/agent_main.c)
# `muster keep`: the launcher of the namespace sandbox.
file(GLOB agent_keep RELATIVE ${CMAKE_SOURCE_DIR} CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/exec/sandbox/keep*.c)
set(MU_AGENT_DEFS)
if(agent_keep)
  file(GLOB agent_launch RELATIVE ${CMAKE_SOURCE_DIR} CONFIGURE_DEPENDS
    ${CMAKE_SOURCE_DIR}/src/exec/sandbox/launch*.c ${CMAKE_SOURCE_DIR}/src/exec/sandbox/tree*.c
    ${CMAKE_SOURCE_DIR}/src/exec/sandbox/seccomp*.c ${CMAKE_SOURCE_DIR}/src/exec/sandbox/landlock*.c
    ${CMAKE_SOURCE_DIR}/src/exec/sandbox/cgroup*.c ${CMAKE_SOURCE_DIR}/src/exec/sandbox/limits*.c
    ${CMAKE_SOURCE_DIR}/src/exec/sandbox/box*.c ${CMAKE_SOURCE_DIR}/src/exec/sandbox/ctl*.c
    ${CMAKE_SOURCE_DIR}/src/exec/sandbox/disk*.c ${CMAKE_SOURCE_DIR}/src/exec/sandbox/userns*.c)
  list(APPEND MU_AGENT_SRC ${agent_keep} ${agent_launch})
  list(APPEND MU_AGENT_DEFS MU_WITH_KEEP)
endif()

# The tests of the sandbox build it again, with layers that can be left out.
string(REPLACE ";" "\n" agent_list "${MU_AGENT_SRC}")
file(WRITE ${CMAKE_BINARY_DIR}/agent-obj/sources "${agent_list}\n")

find_program(MU_AGENT_GCC NAMES gcc REQUIRED)
find_file(MU_MUSL_SPECS musl-gcc.specs PATHS /usr/lib/${CMAKE_SYSTEM_PROCESSOR}-linux-musl /usr/local/musl/lib NO_DEFAULT_PATH)
set(agent_flags -std=gnu11 -Os -g1 -ffunction-sections -fdata-sections -fstack-protector-strong -fno-pie
  -fno-omit-frame-pointer -D_GNU_SOURCE "-DMU_VERSION=\"${PROJECT_VERSION}\"" -I${CMAKE_SOURCE_DIR}/src
  -Wall -Wextra -Wshadow -Wconversion -Wvla -Wformat=2 -Wstrict-prototypes -Wmissing-prototypes -Wimplicit-fallthrough
  -Wno-format-truncation)
foreach(def ${MU_AGENT_DEFS})
  list(APPEND agent_flags -D${def})
endforeach()
if(MU_WERROR)
  list(APPEND agent_flags -Werror)
endif()
if(MU_MUSL_SPECS)
  # The kernel's headers, and nothing else of what lies beside them.
  set(MU_KERNEL_HEADERS ${CMAKE_BINARY_DIR}/gen/kernel)
  file(MAKE_DIRECTORY ${MU_KERNEL_HEADERS})
  foreach(folder linux asm-generic asm mtd)
    foreach(place /usr/include /usr/include/${CMAKE_LIBRARY_ARCHITECTURE})
      if(EXISTS ${place}/${folder} AND NOT EXISTS ${MU_KERNEL_HEADERS}/${folder})
        file(CREATE_LINK ${place}/${folder} ${MU_KERNEL_HEADERS}/${folder} SYMBOLIC)
      endif()
    endforeach()
  endforeach()
  set(MU_JSMN_HEADERS ${CMAKE_BINARY_DIR}/gen/jsmn)
  file(MAKE_DIRECTORY ${MU_JSMN_HEADERS})
  if(NOT EXISTS ${MU_JSMN_HEADERS}/jsmn.h)
    file(CREATE_LINK ${JSMN_INCLUDE}/jsmn.h ${MU_JSMN_HEADERS}/jsmn.h SYMBOLIC)
  endif()
  set(agent_libc -specs=${MU_MUSL_SPECS} -isystem ${MU_KERNEL_HEADERS} -isystem ${MU_JSMN_HEADERS})
else()
  message(STATUS "no musl-tools: the agent program is linked against a static glibc")
  set(agent_libc)
endif()

set(agent_objects)
foreach(src ${MU_AGENT_SRC})
  string(REPLACE "/" "_" object ${src})
  set(object ${CMAKE_BINARY_DIR}/agent-obj/${object}.o)
  set(agent_speed)
  if(src STREQUAL src/proto/redact.c) # every byte of a terminal goes through it
    set(agent_speed -O2)
  endif()
  add_custom_command(OUTPUT ${object}
    COMMAND ${CMAKE_C_COMPILER_LAUNCHER} ${MU_AGENT_GCC} ${agent_libc} ${agent_flags} ${agent_speed} -MD -MF ${object}.d -c ${CMAKE_SOURCE_DIR}/${src} -o ${object}
    DEPENDS ${CMAKE_SOURCE_DIR}/${src} DEPFILE ${object}.d VERBATIM COMMENT "agent: ${src}")
  list(APPEND agent_objects ${object})
endforeach()
file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/agent-obj ${CMAKE_BINARY_DIR}/agent/bin)
set(MU_AGENT_PROGRAM ${CMAKE_BINARY_DIR}/agent/bin/muster)
add_custom_command(OUTPUT ${MU_AGENT_PROGRAM}
  COMMAND ${MU_AGENT_GCC} ${agent_libc} -static -no-pie -Wl,--gc-sections -Wl,-z,noexecstack -Wl,-z,relro -s ${agent_objects} -o ${MU_AGENT_PROGRAM}
  DEPENDS ${agent_objects} VERBATIM COMMENT "agent: linking")
set(agent_scripts)
foreach(place entrypoint.sh agent/entrypoint.sh)
  add_custom_command(OUTPUT ${CMAKE_BINARY_DIR}/agent/${place}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/agent/agent
    COMMAND ${CMAKE_COMMAND} -E copy ${CMAKE_SOURCE_DIR}/packaging/entrypoint.sh ${CMAKE_BINARY_DIR}/agent/${place}
    COMMAND chmod 0755 ${CMAKE_BINARY_DIR}/agent/${place}
    DEPENDS ${CMAKE_SOURCE_DIR}/packaging/entrypoint.sh VERBATIM)
  list(APPEND agent_scripts ${CMAKE_BINARY_DIR}/agent/${place})
endforeach()
add_custom_target(muster-agent ALL DEPENDS ${MU_AGENT_PROGRAM} ${agent_scripts})
install(DIRECTORY ${CMAKE_BINARY_DIR}/agent/ DESTINATION lib/muster/agent USE_SOURCE_PERMISSIONS)

# The same program for the tests of a sanitized build: there the sanitizers watch it.
if(MU_SANITIZE AND NOT MU_FUZZ)
  add_executable(muster-agent-san ${MU_AGENT_SRC})
  target_include_directories(muster-agent-san PRIVATE ${CMAKE_SOURCE_DIR}/src)
  target_compile_definitions(muster-agent-san PRIVATE ${MU_AGENT_DEFS})
endif()
