# libmuster: include/muster/control_plane.h as a shared and a static library. Both hold the floors up to the faces of
# sessions; only mu_cp_* can be seen from outside.
set(MU_LIB_SCRIPT ${CMAKE_SOURCE_DIR}/cmake/library.map)
add_library(muster_shared SHARED $<TARGET_OBJECTS:mu_lib>)
target_link_libraries(muster_shared PRIVATE mu_face)
target_link_options(muster_shared PRIVATE -Wl,--version-script=${MU_LIB_SCRIPT} -Wl,--no-undefined)
set_target_properties(muster_shared PROPERTIES OUTPUT_NAME muster VERSION ${PROJECT_VERSION} SOVERSION 0
  LINK_DEPENDS ${MU_LIB_SCRIPT} BUILD_RPATH_USE_ORIGIN ON BUILD_RPATH "${MU_DEPS}/lib/${CMAKE_LIBRARY_ARCHITECTURE}")
if(MU_SANITIZE) # the sanitizer's own symbols are the program's
  target_link_options(muster_shared PRIVATE -Wl,-z,undefs)
endif()

# The static one is one object, so that what is shared between its files can be hidden.
set(MU_LIB_OBJECT ${CMAKE_BINARY_DIR}/gen/libmuster.o)
set(MU_LIB_STATIC ${CMAKE_BINARY_DIR}/libmuster.a)
set(MU_LIB_RELOCATE ${CMAKE_C_COMPILER} -r -nostdlib)
if(MU_LTO AND CMAKE_C_COMPILER_ID STREQUAL "GNU")
  list(APPEND MU_LIB_RELOCATE -O2 -flto=auto -flinker-output=nolto-rel)
endif()
set(MU_LIB_FLOORS face app exec db net proto io base)
set(MU_LIB_ARCHIVES)
foreach(floor ${MU_LIB_FLOORS})
  list(APPEND MU_LIB_ARCHIVES $<TARGET_FILE:mu_${floor}>)
endforeach()
if(LLHTTP_LIB MATCHES "\\.a$")
  list(APPEND MU_LIB_ARCHIVES ${LLHTTP_LIB})
else()
  set(MU_PC_LLHTTP " -lllhttp")
endif()
add_custom_command(OUTPUT ${MU_LIB_STATIC}
  COMMAND ${MU_LIB_RELOCATE} -o ${MU_LIB_OBJECT} $<TARGET_OBJECTS:mu_lib> -Wl,--start-group ${MU_LIB_ARCHIVES} -Wl,--end-group
  COMMAND ${CMAKE_OBJCOPY} --wildcard --keep-global-symbol=mu_cp_* ${MU_LIB_OBJECT}
  COMMAND ${CMAKE_COMMAND} -E rm -f ${MU_LIB_STATIC}
  COMMAND ${CMAKE_AR} crs ${MU_LIB_STATIC} ${MU_LIB_OBJECT}
  DEPENDS mu_lib mu_face mu_app mu_exec mu_db mu_net mu_proto mu_io mu_base $<TARGET_OBJECTS:mu_lib>
  COMMAND_EXPAND_LISTS VERBATIM)
add_custom_target(muster_static ALL DEPENDS ${MU_LIB_STATIC})

# --- cmake --install --component library; what only runs the server does not need it, nor must it be built ---
file(RELATIVE_PATH MU_PC_PREFIX ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
if(YYJSON_LIB MATCHES "^${MU_DEPS}/") # comes along (CMakeLists.txt)
  set(MU_PC_YYJSON " -L\${libdir}/muster -l:libyyjson.so.0")
  set_target_properties(muster_shared PROPERTIES INSTALL_RPATH "$ORIGIN/muster")
  install(FILES ${MU_YYJSON} DESTINATION ${CMAKE_INSTALL_LIBDIR}/muster COMPONENT library EXCLUDE_FROM_ALL)
else()
  set(MU_PC_YYJSON " -lyyjson")
endif()
foreach(pc muster muster-static)
  configure_file(packaging/${pc}.pc.in ${MU_GEN}/${pc}.pc @ONLY)
endforeach()
install(TARGETS muster_shared LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT library EXCLUDE_FROM_ALL)
install(FILES ${MU_LIB_STATIC} DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT library EXCLUDE_FROM_ALL)
install(FILES include/muster/control_plane.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/muster COMPONENT library EXCLUDE_FROM_ALL)
install(FILES ${MU_GEN}/muster.pc ${MU_GEN}/muster-static.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT library EXCLUDE_FROM_ALL)
install(FILES examples/control_plane.c DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples COMPONENT library EXCLUDE_FROM_ALL)
