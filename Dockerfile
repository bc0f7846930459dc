# Sockwork on Debian 12. The namespaces of the testbed need: docker run --privileged
FROM debian:12
COPY . /sockwork
WORKDIR /sockwork
RUN ./sockwork doctor && rm -rf /var/lib/apt/lists/*
ENTRYPOINT ["./sockwork"]
CMD ["check", "--solutions"]
