# Read by the port's Makefile in a checkout, where what is beside it is built
# and nothing is fetched.  In the ports tree there is no such file.

.undef USE_GITHUB
MASTER_SITES=	# none
DISTFILES=	# none

do-extract:
	@${MKDIR} ${WRKSRC}
	@cd ${.CURDIR} && ${CP} -Rp CHANGELOG.md LICENSE README.md docs files periodic pyproject.toml src tests ${WRKSRC}

demo:
	@cd ${.CURDIR} && ${SETENV} PYTHONPATH=src:tests ${PYTHON_CMD} tests/demo.py
