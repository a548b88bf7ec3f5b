# SPDX-License-Identifier: BSD-2-Clause
# libcompat_netmap and its examples, of the engine's C and nothing of Python. Included by the Makefile.

COMPAT_VERSION := 1
# compat-sanitize: the same with AddressSanitizer and UndefinedBehaviorSanitizer, in a folder of its own.
COMPAT_BUILD := build/compat
COMPAT_LIBDIR ?= $(PREFIX)/lib

# Doors are the daemon's.
COMPAT_FOLDERS := $(filter-out cuse_netmap/doors,$(ENGINE_FOLDERS)) cuse_netmap/dpdk
COMPAT_ENGINE := $(wildcard $(addsuffix /*.c,$(COMPAT_FOLDERS)))
COMPAT_SOURCES := $(wildcard compat/library/*.c)
COMPAT_PUBLIC := $(wildcard compat/include/*.h)
COMPAT_EXAMPLES := $(patsubst compat/examples/%.c,%,$(wildcard compat/examples/*.c))

# Asked for when a recipe runs, so that nobody else needs libdpdk. Its headers' warnings are its own.
COMPAT_CFLAGS = $(ENGINE_CFLAGS) -Icompat/include -Icompat/library -Icuse_netmap -Icuse_netmap/include \
	$(patsubst -I%,-isystem %,$(shell pkg-config --cflags libdpdk)) $(COMPAT_EXTRA) $(CPPFLAGS) $(CFLAGS)
COMPAT_LIBS := -Wl,--as-needed -lrte_ethdev -lrte_mbuf -lrte_mempool -lrte_net -lrte_eal -lrte_kvargs -lrte_ring
COMPAT_SANITIZER := -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined

# What each needs of headers the compiler writes beside it.
-include $(shell find $(COMPAT_BUILD) -name '*.d' 2>/dev/null)
$(COMPAT_BUILD)/%.o: %.c cuse_netmap/engine.mk
	@$(AS_OWNER) mkdir -p $(@D)
	@$(AS_OWNER) $(CC) $(COMPAT_CFLAGS) -MMD -MP -c -o $@ $<

# The engine is an archive, of which the library takes what it calls.
$(COMPAT_BUILD)/libnetmap_engine.a: $(COMPAT_ENGINE:%.c=$(COMPAT_BUILD)/%.o)
	@rm -f $@
	@$(AS_OWNER) $(AR) rcs $@ $^

$(COMPAT_BUILD)/libcompat_netmap.so.$(COMPAT_VERSION): $(COMPAT_SOURCES:%.c=$(COMPAT_BUILD)/%.o) \
		$(COMPAT_BUILD)/libnetmap_engine.a compat/library/exports.map
	@$(AS_OWNER) $(CC) $(COMPAT_EXTRA) -shared -Wl,-soname,libcompat_netmap.so.$(COMPAT_VERSION) \
		-Wl,--version-script=compat/library/exports.map $(LDFLAGS) -o $@ $(filter %.o %.a,$^) $(COMPAT_LIBS) -pthread

$(COMPAT_BUILD)/libcompat_netmap.so: $(COMPAT_BUILD)/libcompat_netmap.so.$(COMPAT_VERSION)
	@$(AS_OWNER) ln -sf $(<F) $@

$(COMPAT_BUILD)/%: compat/examples/%.c $(COMPAT_PUBLIC) $(COMPAT_BUILD)/libcompat_netmap.so
	@$(AS_OWNER) $(CC) $(COMPAT_CFLAGS) $(LDFLAGS) -o $@ $< -L$(COMPAT_BUILD) -lcompat_netmap $(COMPAT_LIBS) \
		-Wl,-rpath,'$$ORIGIN'

.PHONY: compat-files
compat-files: $(COMPAT_BUILD)/libcompat_netmap.so $(addprefix $(COMPAT_BUILD)/,$(COMPAT_EXAMPLES))

.PHONY: compat
compat: ## build libcompat_netmap (netmap inside DPDK programs) and its examples into build/compat
	@packaging/deps $(PYTHON) dpdk
	@$(MAKE) --no-print-directory compat-files

.PHONY: compat-sanitize
compat-sanitize: ## the same with AddressSanitizer and UndefinedBehaviorSanitizer, into build/compat-sanitize
	@packaging/deps $(PYTHON) dpdk
	@$(MAKE) --no-print-directory compat-sanitize-files

.PHONY: compat-sanitize-files
compat-sanitize-files:
	@$(MAKE) --no-print-directory compat-files COMPAT_BUILD=build/compat-sanitize COMPAT_EXTRA='$(COMPAT_SANITIZER)'

.PHONY: install-compat
install-compat: compat-files ## install libcompat_netmap, its headers, manual page and pkg-config file below DESTDIR/PREFIX
	install -d $(DESTDIR)$(COMPAT_LIBDIR)/pkgconfig $(DESTDIR)$(PREFIX)/include/compat_netmap \
		$(DESTDIR)$(PREFIX)/share/man/man3
	install -m 644 $(COMPAT_BUILD)/libcompat_netmap.so.$(COMPAT_VERSION) $(DESTDIR)$(COMPAT_LIBDIR)
	ln -sf libcompat_netmap.so.$(COMPAT_VERSION) $(DESTDIR)$(COMPAT_LIBDIR)/libcompat_netmap.so
	sed -e 's,@prefix@,$(PREFIX),' -e 's,@libdir@,$(COMPAT_LIBDIR),' \
		-e "s,@version@,$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' cuse_netmap/__init__.py)," \
		compat/compat_netmap.pc.in > $(DESTDIR)$(COMPAT_LIBDIR)/pkgconfig/compat_netmap.pc
	install -m 644 $(COMPAT_PUBLIC) $(DESTDIR)$(PREFIX)/include/compat_netmap
	install -m 644 compat/man/compat_netmap.3 $(DESTDIR)$(PREFIX)/share/man/man3
